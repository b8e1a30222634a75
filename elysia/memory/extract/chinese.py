"""Facts in a Chinese sentence: patterns of how people speak of themselves, and the slots that they fill.

Patterns read one clause at a time; most read what follows its first character, 我.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from elysia.memory.dates import find_date_ranges, get_local_date
from elysia.memory.extract.slots import UserFact, build_slot_name

# Alternations that the patterns below are built from.
SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔钟谭"
    "陆汪范金石廖贾夏韦付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严覃武戴莫孔向汤温康施文牛樊葛邢安齐"
)
JOBS = (
    "护士|医生|大夫|老师|教师|教授|律师|会计|程序员|工程师|司机|厨师|设计师|经理|警察|军人|消防员|记者|编辑|"
    "画家|作家|写手|演员|歌手|主播|销售|客服|店员|店长|老板|快递员|外卖员|骑手|公务员|职员|文员|教练|摄影师|"
    "翻译|学生|研究生|博士|硕士|大学生|中学生|高中生|初中生|小学生|自由职业者?|农民|工人|保安|理发师|药师|"
    "兽医|飞行员|空姐|导游|策划|运营|法官|科学家|研究员|音乐人|建筑师|木匠|裁缝|插画师|咖啡师|面包师|"
    "家庭主妇|全职妈妈|护工|技术员|分析师|顾问|设计"
)
PETS = (
    "猫咪?|小猫|狗狗?|小狗|犬|兔子?|仓鼠|鹦鹉|乌龟|金鱼|小鸟|龙猫|刺猬|蜥蜴|柯基|金毛|哈士奇|泰迪|布偶|英短|"
    "美短|拉布拉多|边牧|法斗|比熊|博美|萨摩耶|守宫|荷兰猪"
)
PARTNERS = "男朋友|女朋友|男友|女友|老公|老婆|丈夫|妻子|对象|未婚夫|未婚妻|爱人"
FAMILY = (
    "妈妈?|母亲|爸爸?|父亲|哥哥?|姐姐?|弟弟?|妹妹?|儿子|女儿|爷爷|奶奶|外公|外婆|姥姥|"
    "姥爷|舅舅|叔叔|姑姑|阿姨"
)
OTHERS = "室友|闺蜜|同事|导师|班主任|领导|同桌"
ILLNESS = (
    "糖尿病|高血压|低血压|低血糖|哮喘|抑郁症|焦虑症|近视|"
    "色盲|心脏病|癫痫|失眠症?|偏头痛|胃病|鼻炎|贫血|痛风|湿疹|乙肝|癌症?"
)
BODY = "膝盖|腰|背|脚踝?|手腕?|胳膊|腿|脖子|肩膀|胃|牙齿?|眼睛|耳朵|嗓子|头|心脏"

NAME = r"(?P<name>[\u4e00-\u9fff·]{1,5}|[A-Za-z][A-Za-z .'-]{0,30})"
END = r"(?:了|啦|哦|呀|啊|吧|的|喔|哈|呢|就好|就行|好了|就可以)*$"
ADV = (
    r"(?:现在|目前|今年|已经|都|其实|刚刚?|才|就|也|还|又|真的|一直|从小|最近|平时|终于|后来|前几天|上周|"
    r"上个月|昨天|今天|以后|再|可|本来就|是真的|决定|开始|只是|不过)*"
)
DEGREE = r"(?:最|很|特别|超级?|非常|好|挺|比较|有点|更|只|尤其|蛮|太|十分)*"
NOT = r"(?:再也|从来|一点|根本)*(?:不再|不太|不怎么|不大|不)"
DO = "吃|喝|看|听|玩|做|读|逛|去|打|弹|画|养|用|写|学|唱|跳|买"
COUNT = r"(?:\d+|[一二两三四五六七八九十几]+)?"

# Taken off the front of a clause.
FILLER = re.compile(
    r"^(?:你好|哈喽|嗨|嗯+|啊|哦|对了|其实|说实话|顺便说一下|那个|不对|不是|说错了|而且|但是|可是|不过|因为|"
    r"所以|然后|现在|今天|昨天|最近|以后|上周|去年|悄悄告诉你|偷偷跟你说|告诉你|跟你说|说起来|记住|记得|"
    r"谢谢|呀|吧)+[呀啊吧哦～~：: ]*(?=我|叫)"
)
# Clauses that state no fact of now: questions, suppositions, what others say, the past, wishes.
ASKS = re.compile(r"什么|谁|哪|吗|几岁|多少|怎么|为什么|是不是|有没有|猜|记得.*(?:不|没)$|呢$")
SUPPOSED = re.compile(
    r"如果|假如|要是|假设|万一|倘若|若是|想象|梦见|梦到|希望|真想|好想|恨不得|就好了|本来想|差点"
)
REPORTED = re.compile(
    r"^(?!我(?:说|想说|告诉|跟)).{0,10}(?:说|问|讲|喊|以为|觉得|告诉我|骗我|写道)(?!得|话|走|一下|不定)"
)
PAST = re.compile(r"以前|曾经?|之前|小时候|那时候?|当年|原来|过去|当时|过$")
WISHED = re.compile(r"想|打算|准备|要|会|可能|也许|计划|考虑|快要|差不多")
# A clause without a subject that begins so has the one of the clause before.
CARRIED = re.compile(
    r"^(?:现在|已经|今年|在|住|租|是|养|有|喜欢|最|很|特别|读|学|做|当|不|戒|来自|老家|毕业|属|"
    r"爱|讨厌|对|会|还|也|都|只|改|每)"
)
# After a mention of somebody else, clauses without a subject are about them.
OTHER = re.compile(
    rf"朋友|同学|同事|邻居|学[姐妹长弟]|亲戚|网友|客户|病人|(?<![是当做])一[个位只条]|有个|养了|暗恋|认识|{PETS}"
)
SCHOOL = r"[^在于上进了]{1,10}?(?:大学|学院|中学|高中|小学|一中|师大)"
# What follows 叫 or 是 or 喜欢 in everyday phrases, and is no name, no place and no thing.
BAD_NAME = re.compile(
    r"^(?:[了过着他她它你我您这那不来上出醒去别多少早回]|什么|外卖|车|的士|救护|大家|起床|"
    r"一[个声下]|家|快递|代驾|怎么|服务员)"
)
NO_ORIGIN = re.compile(
    r"^(?:男|女|好|坏|老|年轻|病|普通|成年|中年|现代|地球|单身|内向|外向|打工|聪明|一?个|那|这|什么|哪|工|"
    r"新|大|路|局外|当事|负责|主|客|本地|外地|有|没|双性恋|同性恋|异性恋|.*的$)"
)
NO_THING = re.compile(r"^(?:你|您|他|她|它|这|那|我|什么|谁|哪|怎么|人家|莉|得|上了?$|$)")
TODAY = re.compile(r"今天|今晚|昨天|刚才|刚刚|这次|今早")

Rule = tuple[re.Pattern[str], str, float, Callable[[str, "re.Match[str]"], bool] | None]


def _is_name(_clause: str, match: re.Match[str]) -> bool:
    return not BAD_NAME.search(match["name"])


def _is_settled(clause: str, _match: re.Match[str]) -> bool:
    return not (PAST.search(clause) or WISHED.search(clause))


def _is_home(clause: str, match: re.Match[str]) -> bool:
    return _is_settled(clause, match) and not re.search(
        r"住院|住校|酒店|宾馆|[一两几三]个?(?:天|晚|夜)", clause
    )


def _is_origin(_clause: str, match: re.Match[str]) -> bool:
    return not NO_ORIGIN.search(match["place"])


# Over what follows 我, up to the end of the clause: pattern, slot, importance, a further condition.
RULES: list[Rule] = [
    (re.compile(pattern), slot, importance, check)
    for pattern, slot, importance, check in (
        (
            rf"^(?:的(?:真名|本名|名字|姓名|全名|大名)?(?:其实|现在|就)*(?:叫做?|是叫?)|"
            rf"{ADV}(?:名叫|叫做?|改名叫|改名为|真名叫|本名叫)){NAME}{END}",
            "name", 0.95, _is_name,
        ),
        (rf"^是(?P<name>[{SURNAMES}][\u4e00-\u9fff]{{1,2}})(?<![人生师员家者工])$", "name", 0.9, _is_name),
        (rf"^{ADV}(?:满|快|刚满|马上)?(?:\d{{1,3}}|[一二三四五六七八九十]{{1,4}})岁(?:了|啦|整|"
         rf"半)?$", "age", 0.8, None),
        (
            r"^(?:的)?(?:阳历|农历|公历)?生日(?:其实)?(?:是|在|就是)?[^，]*(?:月|节|\d)[^，]*$",
            "birthday", 0.9, None,
        ),
        (r"^是?(?:\d{4}年)?[\d一二三四五六七八九十]{1,3}月[\d一二三四五六七八九十]{1,3}[日号](?:出生|"
         r"生)的?$", "birthday", 0.9, None),
        (rf"^{ADV}(?:住在?|定居在?|(?:从[^，]{{1,6}})?搬(?:家)?(?:到|来|去|回)了?|租(?:住|房子?)?在|"
         rf"生活在)(?P<place>[^，]{{1,16}}?)(?:了|啦)?$", "home", 0.9, _is_home),
        (rf"^{ADV}不(?:再)?(?:住在?|在)(?P<place>[^，]{{1,10}}?)(?:住)?了$", "home", 0.85, None),
        (r"^(?:是|来自)(?P<place>[\u4e00-\u9fff]{2,6})人$", "origin", 0.8, _is_origin),
        (r"^(?:来自|(?:的)?(?:老家|家乡|故乡)(?:是|在)|出生在|出生于|"
         r"从小在)(?P<place>[\u4e00-\u9fff]{2,10})(?:长大的?)?$", "origin", 0.8, _is_origin),
        (rf"^{ADV}(?:是|当|做|成为|成了|当上|转行做|改行做|干|"
         rf"担任)了?(?:一?[名个位])?[^的，]{{0,10}}(?:{JOBS})(?:的|了|工作)?$", "job", 0.85, _is_settled),
        (rf"^{ADV}(?:在|进了?|跳槽到|跳槽去)(?P<place>[^，]{{1,16}}?)(?:上班|工作|任职|实习|就职|"
         rf"教书|[做当教](?:{JOBS}|[^，]{{1,8}}))(?:了|的)?$", "job", 0.85, _is_settled),
        (
            rf"^{ADV}在[^，]{{1,10}}读(?:研究生|博士?|硕士|大学|本科|高中)[^，]{{0,3}}$",
            "school", 0.8, _is_settled,
        ),
        (r"^(?:大学|本科|硕士|博士)?(?:是)?毕业于[^，]{2,14}$", "school", 0.8, None),
        (r"^姓[\u4e00-\u9fff]{1,2}$", "surname", 0.9, None),
        (rf"^{ADV}会(?:弹|拉|唱|跳|画|做|修|游泳|开车|编程|下|打)[^，了吗]{{0,6}}$", "skill:*", 0.6, None),
        (rf"^{ADV}跳槽(?:到|去)了?[^，]{{1,14}}$", "job", 0.85, _is_settled),
        (rf"^{ADV}(?:辞职|离职|失业|退休|下岗|被裁员?|裸辞|换工作)了?[^，]{{0,6}}$",
         "job", 0.85, _is_settled),
        (rf"^{ADV}(?:在|就读于|考上了?|考进了?|毕业于|是)?{SCHOOL}(?:读书?|上学|念书?|毕业|"
         rf"的?学生|大[一二三四]|研[一二三])?[^，]{{0,4}}$", "school", 0.8, _is_settled),
        (rf"^{ADV}(?:学|读|念|主修|的?专业是)(?P<what>[^，了过着个会得]{{2,8}})(?:专业|的|"
         rf"专业的)$", "major", 0.75, None),
        (rf"^{ADV}(?:读|上|念)?(?:大[一二三四]|高[一二三]|初[一二三]|[一二三四五六]年级|"
         rf"研[一二三])(?:了|的)?$", "grade", 0.7, None),
        (rf"^{ADV}(?:跟|和|与)(?P<name>[^，]{{1,8}}?){ADV}(?:分手|离婚|订婚|结婚|领证|在一起|"
         rf"复合)了[^，]{{0,4}}$", "partner", 0.9, _is_settled),
        (r"^们?(?:已经|刚|昨天|上周|上个月)*(?:结婚|离婚|分手|订婚|失恋|恋爱|脱单|"
         r"复合)[^，]{0,4}了[^，]{0,6}$", "partner", 0.9, None),
        (rf"^{ADV}(?:是|还是)?单身[^，]{{0,4}}$", "partner", 0.85, _is_settled),
        (
            rf"^{ADV}(?:有|没有|没|交了?|谈了?)(?:新的?|一?个)*(?:{PARTNERS})(?:了|啦)?$",
            "partner", 0.85, None,
        ),
        (
            rf"^{ADV}(?:有|没有|没){COUNT}个?(?:儿子|女儿|孩子|宝宝|双胞胎)[^，]{{0,8}}$",
            "children", 0.85, None,
        ),
        (rf"^{ADV}(?:是独生(?:子女|子|女)|(?:有|没有){COUNT}个?(?:哥哥|姐姐|弟弟|妹妹|兄弟姐妹|"
         rf"亲兄弟))$", "siblings", 0.75, None),
        (rf"^{ADV}(?:怀孕|有喜)了?[^，]{{0,6}}$", "health:怀孕", 0.9, None),
        (
            rf"^{ADV}(?:血糖|血压|血脂|尿酸)[^，]{{0,3}}(?:高|低|正常)[^，]{{0,3}}$",
            "health:指标", 0.85, None,
        ),
    )
]  # fmt: skip

# People and pets. `rel` is the relation, `kind` the animal.
CALLED = re.compile(
    rf"^(?:你|您|大家|朋友们?|同学们?|同事们?)?(?:可以|就|以后|都|也|平时|还是|直接)*(?:叫|喊|"
    rf"称呼)我{NAME}{END}"
)
RELATION = re.compile(
    rf"^我(?:的)?(?P<rel>{PARTNERS}|{FAMILY}|{OTHERS})(?:的名字)?(?:名?叫做?|是叫|姓名是|"
    rf"姓)(?P<name>[\u4e00-\u9fff·]{{1,5}}|[A-Za-z]{{2,20}}){END}"
)
BESIDE = re.compile(
    rf"^我(?:的)?(?P<rel>{PARTNERS}|{FAMILY}|{OTHERS})(?P<name>[{SURNAMES}][\u4e00-\u9fff]{{1,2}}?)(?=在|说|"
    rf"是|要|今年|比|也|的|来|去|正|刚|给|和|跟|现|已|失|又|$)"
)
SOMEBODY = re.compile(rf"我(?:的)?(?:{FAMILY}|{PARTNERS}|{OTHERS}|朋友|同学)")
PRONOUN = re.compile(rf"^[她他](?:名?叫做?){NAME}{END}")
MENTIONED = re.compile(rf"我(?:的)?(?P<rel>{PARTNERS}|{FAMILY})")
BIRTHDAY = re.compile(
    rf"^(?:(?P<day>[^我，]{{2,12}})是我(?:的)?(?P<rel>{FAMILY}|{PARTNERS})?(?:的)?生日|"
    rf"我(?P<rel2>{FAMILY}|{PARTNERS})(?:的)?生日(?:是|在)(?P<day2>[^，]{{2,12}}))$"
)
PET = re.compile(
    rf"我(?:们?家)?(?:里)?{ADV}(?:有|养了?|领养了?|收养了?|捡了?|买了?){COUNT}(?:只|条|匹|个|头|"
    rf"对)?[^，,。叫]{{0,8}}?(?P<kind>{PETS})(?:[，,]?[它她他]?(?:的?名字)?(?:名叫|叫做?|取名叫?|"
    rf"起名叫?)(?P<name>[\u4e00-\u9fff]{{1,4}}?|[A-Za-z]{{2,20}})(?=$|[，,了呀啊哦]|在))?"
)
MY_PET = re.compile(
    rf"我们?(?:家)?的?(?P<kind>{PETS})(?:的名字)?(?:名?叫做?|"
    rf"名字是)(?P<name>[\u4e00-\u9fff]{{1,4}}|[A-Za-z]{{2,20}}){END}"
)
FAMILY_GONE = re.compile(rf"^我(?:的)?(?P<rel>{FAMILY})[^，]{{0,6}}(?:去世|过世|走|不在)了")
PET_GONE = re.compile(
    r"^(?:我家?的?)?(?P<name>[\u4e00-\u9fff]{1,4}?)(?:昨天|今天|上周|前几天|已经)*(?:去世|过世|"
    r"走丢|死|去喵星|去汪星|被?送人)了"
)
# Likes, habits and health. A statement and its contrary fill the same slot.
TASTE = re.compile(
    rf"^{ADV}{DEGREE}(?:{NOT})?{DEGREE}(?:喜欢上?|爱(?=[{DO.replace('|', '')}]|上|[\u4e00-\u9fff]{{2}})|"
    rf"热爱|钟爱|迷上|讨厌|受不了|怕|害怕)了?(?:{DO})?(?P<thing>[^，]{{1,14}}?)(?:了|啦|啊|呀|哦)*$"
)
REFUSED = re.compile(
    rf"^{ADV}(?:{NOT}(?:再)?(?:吃|喝|抽|碰)|戒掉?了?)(?P<thing>[^，了过饭]{{1,8}})(?:了|啦)?$"
)
HABIT = re.compile(
    rf"^{ADV}(?:每天|每周[一二三四五六日天]?|每晚|每个?周末|天天|一周)(?:都|早上|晚上|中午|下午|"
    rf"早晨|凌晨|会|要|能|去)*(?P<what>[\u4e00-\u9fff\d][^，]{{1,14}})$"
)
STOPPED = re.compile(rf"^{ADV}不(?P<what>[\u4e00-\u9fff]{{1,4}})了$")
ALLERGY = re.compile(
    rf"^{ADV}(?:对|不)?(?P<what>[^，]{{1,10}}?)(?:严重|有点|也|会|不|已经不)*过敏[^，]{{0,4}}$"
)
ILL = re.compile(
    rf"^{ADV}(?:有|得了?|患有?|查出了?|确诊了?)(?:轻微|严重|点|一点)*的?(?P<what>{ILLNESS})[^，]{{0,4}}$"
)
ACHING = re.compile(
    rf"^(?:的)?(?P<what>{BODY})(?:[^，]{{0,6}}?)(?:疼|痛|不舒服|扭伤?了?|骨折|受伤|拉伤|好了|"
    rf"没事了|恢复了|痊愈)[^，]{{0,3}}$"
)
LANGUAGE = re.compile(
    rf"^{ADV}(?:在|正在)?(?:不会|会|能)?(?:说|讲|学|"
    rf"自学)(?:一点)?(?P<what>[\u4e00-\u9fff]{{1,4}}(?:语|话)|英文|中文|日文)[^，]{{0,4}}$"
)
# Plans: facts only with a day that is named.
MOVED = re.compile(
    r"(?P<event>[\u4e00-\u9fff]{2,8}?)(?:的时间|的日子)?(?:定在|改到|改在|改成|推迟到|提前到|"
    r"延期到|约在|安排在)了?[^，]+"
)
CANCELLED = re.compile(
    r"^(?:我)?(?:的)?(?P<a>[\u4e00-\u9fff]{2,6}?)(?:被)?取消了$|^我?(?:不去|取消了?|"
    r"放弃了?)(?P<b>[\u4e00-\u9fff]{2,6}?)了?$"
)
PLANNED = re.compile(r"想|打算|准备|计划|要|会|将|得|约了|去|报名|报到")
EVENT = re.compile(
    r"面试|考试|手术|婚礼|答辩|旅行|比赛|演出|体检|搬家|开学|入职|报到|出差|毕业|结婚|上班|回"
)
AND = re.compile(r"、|还有|以及|(?<=[\u4e00-\u9fff]{2})[和跟与](?=[\u4e00-\u9fff]{2})")
DAYTIME = re.compile("早上|晚上|中午|下午|早晨|凌晨|都|会|要|去|能")
# Verbs that say little without their object.
HOLLOW = set("打弹学做看吃喝玩去写练听读用")


def extract_chinese(sentence: str, is_question: bool, at: float) -> Iterator[UserFact]:
    """The facts of one sentence, written at `at` (seconds since 1970). A question states none in its
    last clause.
    """
    if SUPPOSED.search(sentence):
        return
    yield from _find_pets(sentence)
    clauses = [part.strip() for part in re.split(r"[，,]", sentence) if part.strip()]
    is_about_user = False  # whether a clause without a subject is about the user
    for n, clause in enumerate(clauses, 1):
        if REPORTED.search(clause) and not clause.startswith("我最"):
            yield from _find_named_relative(clause)
            return  # what follows are somebody else's words
        if (is_question and n == len(clauses)) or ASKS.search(clause):
            is_about_user = False
            continue
        body = FILLER.sub("", clause)
        if is_about_user and not body.startswith("我") and _lacks_subject(body):
            body = "我" + body
        yield from _find_people(body, sentence, at)
        is_about_user = body.startswith("我") and not SOMEBODY.match(body)
        if is_about_user:
            yield from _find_own(body)
            is_about_user = not OTHER.search(body)
        yield from _find_plans(body, at)


def _lacks_subject(body: str) -> bool:
    return bool(CARRIED.search(body) or re.match(SCHOOL, body))


def _find_own(clause: str) -> Iterator[UserFact]:
    rest = clause[1:]
    for rule, slot, importance, condition in RULES:
        match = rule.search(rest)
        if match and (condition is None or condition(rest, match)):
            yield UserFact(slot.replace("*", rest.lstrip("会")[:8]), clause, importance)
            break
    for pattern, kind, importance in (
        (ALLERGY, "allergy", 0.95),
        (ILL, "health", 0.9),
        (ACHING, "health", 0.7),
        (LANGUAGE, "language", 0.7),
    ):
        if (match := pattern.search(rest)) and not WISHED.search(rest.replace("会", "")):
            thing = build_slot_name(match["what"].lstrip("对"))
            yield UserFact(f"{kind}:{thing}", clause, importance)
            return
    yield from _find_tastes(clause, rest)


def _find_tastes(clause: str, rest: str) -> Iterator[UserFact]:
    if TODAY.search(rest) or PAST.search(rest):
        return
    if match := TASTE.search(rest) or REFUSED.search(rest):
        lead = clause[: match.start("thing") + 1]
        for thing in AND.split(match["thing"]):
            if not NO_THING.search(thing):
                text = clause if thing == match["thing"] else lead + thing
                yield UserFact(f"taste:{build_slot_name(_strip_thing(thing))}", text, 0.7)
    elif match := HABIT.search(rest):
        yield UserFact(f"habit:{_name_activity(match['what'])}", clause, 0.6)
    elif match := STOPPED.search(rest):
        activity = _name_activity(match["what"])
        yield UserFact(f"habit:{activity}", clause, 0.6, against=activity)


def _strip_thing(thing: str) -> str:
    return re.sub(rf"^(?:{DO})(?=[\u4e00-\u9fff]{{2}})|(?:了|的|啊|呀)$", "", thing)


def _name_activity(what: str) -> str:
    """A verb says enough (跑), but 打 or 看 need their object."""
    what = DAYTIME.sub("", what)
    return what[:1] if what[:1] not in HOLLOW else what[:4]


def _find_pets(sentence: str) -> Iterator[UserFact]:
    for pattern in (PET, MY_PET):
        match = pattern.search(sentence)
        if match and not re.search(r"想|打算|没有?|不", sentence[: match.end()]):
            text = match.group().rstrip("，, ")
            yield UserFact(f"pet:{match['name'] or match['kind']}", text, 0.85)
            return


def _find_named_relative(clause: str) -> Iterator[UserFact]:
    if match := BESIDE.search(clause):
        yield _build_relative(match["rel"], match["name"])


def _build_relative(relation: str, name: str) -> UserFact:
    text = f"我{relation}叫{name}"
    if re.fullmatch(PARTNERS, relation):
        return UserFact("partner", text, 0.9)
    if re.fullmatch(OTHERS, relation):
        return UserFact(f"acquaintance:{relation}:{name}", text, 0.6)
    return UserFact(f"family:{relation[:1]}:name", text, 0.85)


def _find_people(clause: str, sentence: str, at: float) -> Iterator[UserFact]:
    if (match := CALLED.search(clause)) and not BAD_NAME.search(match["name"]):
        yield UserFact("called", clause, 0.9)
    elif match := RELATION.search(clause):
        fact = _build_relative(match["rel"], match["name"])
        yield UserFact(fact.slot, clause, fact.importance)
    elif match := PRONOUN.search(clause):
        before = list(MENTIONED.finditer(sentence[: sentence.index(clause)]))
        if before:
            yield _build_relative(before[-1]["rel"], match["name"])
    elif match := BIRTHDAY.search(clause):
        relation, day = match["rel"] or match["rel2"], match["day"] or match["day2"]
        if find_date_ranges(day, at, ahead=True):
            slot = f"family:{relation[:1]}:birthday" if relation else "birthday"
            yield UserFact(slot, _append_date(clause, at), 0.85)
    else:
        yield from _find_named_relative(clause)
    if match := FAMILY_GONE.search(clause):
        yield UserFact(f"family:{match['rel'][:1]}:gone", clause, 0.9)
    elif match := PET_GONE.search(clause):
        yield UserFact(f"pet:{match['name']}", clause, 0.85, against=match["name"])


def _find_plans(clause: str, at: float) -> Iterator[UserFact]:
    if match := MOVED.search(clause):
        if find_date_ranges(match.group(), at, ahead=True):
            event = re.sub("^(?:我的?|这次|那个)", "", match["event"])
            yield UserFact(f"plan:{event[-2:]}", _append_date(clause, at), 0.8)
        return
    if match := CANCELLED.search(clause):
        yield UserFact("plan:*", clause, 0.75, against=(match["a"] or match["b"])[-2:])
        return
    today = get_local_date(at)
    is_ahead = any(day.last > today for day in find_date_ranges(clause, at, ahead=True))
    planned = EVENT.search(clause)
    if is_ahead and planned and "我" in clause[:12] and PLANNED.search(clause):
        yield UserFact(f"plan:{planned.group()}", _append_date(clause, at), 0.75)


def _append_date(text: str, at: float) -> str:
    """`text` with the date it means, where its words (明天) will mean another date later."""
    for day in find_date_ranges(text, at, ahead=True):
        words = day.words
        is_absolute = "月" in words and "个月" not in words and ("日" in words or "号" in words)
        if not is_absolute:
            dates = f"{day.first}" if day.first == day.last else f"{day.first} ~ {day.last}"
            return f"{text}（{dates}）"
    return text
