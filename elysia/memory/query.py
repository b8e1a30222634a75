"""Parses a question to a memory: words, subjects with synonyms, days, speaker, and end of time.

SUBJECTS is a small thesaurus of everyday life in Chinese and English: a question about "my pet" should
find the dog.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache

from elysia.memory.dates import DateRange, find_date_ranges
from elysia.retrieval.analyzer import count_content_words, fold_text, stem

MAX_QUESTION = 1_000  # characters of a question that are read

_RECENT = re.compile(
    r"\blast time\b|\blatest\b|\bmost recent|\brecent(?:ly)?\b|\blately\b|\bjust now\b|\bnewest\b|"
    r"上次|上回|最近|最新|刚才|刚刚|近来|这阵子"
)
_FIRST = re.compile(
    r"\bvery first\b|\bfirst (?:time|thing|chat|talk)|第一次|最初|最开始|一开始|刚认识"
)
_BEFORE = re.compile(
    r"\bused to\b|\bbefore\b|\bpreviously\b|\bformer|以前|曾经|之前|原来|过去|原先"
)
_NOW = re.compile(r"\bnow\b|\bstill\b|\bcurrently\b|\bthese days\b|现在|目前|如今|还在")
_ABOUT_ASSISTANT = re.compile(
    r"\byou(?:r)?\b.{0,30}\b(?:recommend|suggest|advi[sc]e|tell|told|say|said|mention|give|gave|"
    r"name|teach|taught|think|answer)|"
    r"\b(?:recommend|suggest|advi[sc]e|told|gave|given|taught)\w*\b.{0,20}\b(?:me|by you|to me)\b|"
    r"你.{0,8}(?:推荐|建议|说过|说的|告诉|教|让我|劝|觉得|提到|回答|提过|给过)"
)
_CLAUSE_BREAKS = re.compile(r"[，,；;、]|\band\b|\bthen\b|以及|还有|后来|然后")

# Subject -> words for it. The key is also the first part of the slot of facts about the subject.
SUBJECTS = {
    "name": "name called 叫 名字 姓名 称呼 全名",
    "age": "age old years 岁 年龄 年纪 多大",
    "birthday": "birthday born birth 生日 出生 寿星",
    "home": "live lives living home house flat apartment move moved moving rent address city 住 "
    "搬 租 家 房子 住址 地址 城市 小区 公寓",
    "origin": "hometown native grew 老家 家乡 故乡 来自 籍贯",
    "job": "job work works working career profession occupation office company boss colleague "
    "employed hired salary interview "
    "工作 上班 职业 公司 单位 岗位 入职 面试 实习 同事 老板 工资 薪水 辞职",
    "school": "school university college study studies student class graduate thesis professor "
    "teacher degree "
    "学校 大学 上学 读书 毕业 论文 老师 专业 学生 研究生 课 班",
    "pet": "pet pets dog cat puppy kitten 宠物 猫 狗 犬 小动物 养",
    "partner": "partner boyfriend girlfriend husband wife spouse fiance lover dating married ex "
    "男朋友 女朋友 男友 女友 老公 老婆 丈夫 妻子 对象 伴侣 恋人 前任 结婚 分手 恋爱",
    "love": "love crush feelings 喜欢 爱 心上人",
    "family": "family parents relatives siblings 家人 家里人 亲人 父母 兄弟姐妹",
    "mother": "mother mum mom 妈妈 妈 母亲",
    "father": "father dad 爸爸 爸 父亲",
    "siblings": "brother sister siblings twin 哥哥 姐姐 弟弟 妹妹 哥 姐 弟 妹 兄弟姐妹",
    "baby": "baby birth child newborn son daughter niece pregnant 宝宝 孩子 婴儿 儿子 女儿 怀孕",
    "friend": "friend friends mate buddy companion pal 朋友 闺蜜 好友 伙伴",
    "taste": "like love enjoy prefer favorite favourite fond into 喜欢 爱 最爱 爱好 兴趣 偏好",
    "dislike": "hate dislike stand bear 讨厌 受不了 不喜欢 嫌",
    "hobby": "hobby hobbies interests pastime leisure fun enjoy 爱好 兴趣 消遣 业余",
    "food": "food eat eating dish dishes meal cuisine taste delicious restaurant dinner lunch "
    "breakfast "
    "吃 菜 饭 食物 美食 口味 菜系 餐 忌口 零食",
    "cooking": "cook cooking recipe recipes kitchen fry steam steamed bake baking ingredients "
    "做饭 烹饪 菜谱 厨房 下厨 炒 蒸 烤",
    "drink": "drink drinks drinking beverage coffee tea wine beer juice 喝 饮料 茶 咖啡 酒 果汁 "
    "奶茶",
    "allergy": "allergy allergic 过敏",
    "health": "health ill illness sick pain hurt hurts doctor hospital injured injury medicine "
    "healthy body "
    "健康 身体 生病 病 毛病 疼 痛 医生 医院 受伤 体检 药",
    "sleep": "sleep sleeping insomnia asleep awake bed 睡 失眠 睡眠 睡不着 熬夜",
    "stress": "stress stressed anxious anxiety worried worry pressure calm relax relieve nervous "
    "afraid scared fear overwhelmed "
    "压力 焦虑 担心 紧张 放松 害怕 发愁 烦恼 烦",
    "sad": "sad down upset cry cried depressed lonely frustrated unhappy rough 难过 伤心 哭 沮丧 "
    "失落 不开心 低落",
    "happy": "happy glad excited joy wonderful great proud good 开心 高兴 快乐 激动 好消息 恭喜",
    "argue": "argue argued quarrel fight conflict 吵架 吵 闹矛盾 矛盾 争执",
    "sport": "sport sports exercise exercising run running swim swimming gym hike hiking "
    "badminton basketball marathon race fitness "
    "运动 锻炼 跑步 跑 游泳 健身 爬山 打球 比赛",
    "movie": "movie movies film films cinema theater actor director 电影 影片 片子 影院",
    "show": "show series tv television episode watch drama 电视剧 剧 节目 综艺 视频",
    "book": "book books novel novels read reading author literature 书 小说 读 看书 阅读 作者",
    "writing": "write writing essay poem story novel author 写 写作 小说 文章 诗 故事",
    "music": "music song songs concert singer singers listen album band hear artist 音乐 歌 唱 "
    "演唱会 歌手 曲子",
    "instrument": "instrument piano guitar violin drums play practice 乐器 钢琴 吉他 琴 弹",
    "art": "art paint painting draw drawing artist painter artwork sketch gallery museum "
    "exhibition 画 绘画 美术 艺术 画家 展览 博物馆",
    "travel": "travel travelling trip journey visit tour tourist vacation holiday sightseeing "
    "abroad "
    "旅行 旅游 旅途 出游 度假 景点 玩 游",
    "walk": "walk walking park stroll outdoors nature scenery garden 散步 公园 风景 户外 花园",
    "money": "money cost price pay paid salary save saved saving savings cheap expensive spend "
    "budget "
    "钱 花 费用 价格 攒 存 工资 多少钱 贵 便宜 资助 挣 赚",
    "buy": "buy bought purchase shopping shop new 买 购 购物 入手",
    "gift": "gift present gave give 礼物 送 礼",
    "learn": "learn learning study studying practice practise skill skills course lesson improve "
    "progress language languages training "
    "学 学习 练 练习 技能 课程 进步 上课 学会",
    "computer": "programming code coding software computer 编程 代码 程序 电脑",
    "plan": "plan plans planning going will intend tomorrow next hope 打算 计划 准备 安排 要 想",
    "advice": "advice advise suggest suggested suggestion recommend recommended recommendation "
    "tip tips help method methods "
    "建议 推荐 办法 方法 教 主意",
    "problem": "problem problems trouble issue issues difficult difficulty struggle wrong "
    "complain mistake "
    "问题 麻烦 困难 困扰 烦恼 毛病 出事",
    "speech": "speech presentation stage audience talk speaking public 演讲 发言 上台",
    "speak": "discuss talk chat topic conversation mention say said 聊 谈 说 提 话题",
    "car": "car drive driving racing race track 车 开车 驾照 赛车",
    "phone": "phone mobile number 手机 电话 号码",
    "time": "when date day time 时候 哪天 日期 几号 时间",
    "weather": "weather rain sunny hot cold heat snow 天气 下雨 晴 热 冷",
    "wear": "wear clothes dress suit shoes 穿 衣服 打扮",
    "plant": "plant plants flower flowers tree garden 植物 花 树 草",
    "celebrate": "wedding party celebrate anniversary guest invitation 婚礼 派对 庆祝 聚会",
}


@dataclass(frozen=True)
class ParsedQuery:
    """What a question asks for. `days` are the dates that it names."""

    text: str
    words: Counter[str]
    clauses: list[Counter[str]]  # the words of each; empty for a question of one clause
    subjects: set[str]
    days: list[DateRange]
    about_assistant: bool  # asks what the character said, not the user
    recent: bool
    first: bool
    before: bool
    now: bool
    synonyms: Counter[str] = field(default_factory=Counter)  # other words for the subjects


def parse_query(text: str, now: float) -> ParsedQuery:
    """Parse a question that is asked at `now` (seconds since 1970)."""
    text = text[:MAX_QUESTION]
    folded = fold_text(text)
    days = find_date_ranges(text, now)
    undated = folded
    for day in days:
        undated = undated.replace(fold_text(day.words), " ")
    words = count_content_words(undated)
    clauses = [
        clause for part in _CLAUSE_BREAKS.split(undated) if (clause := count_content_words(part))
    ]
    subjects = find_subjects(set(words), undated)
    return ParsedQuery(
        text=text,
        words=words,
        clauses=clauses if len(clauses) > 1 else [],
        subjects=subjects,
        days=days,
        about_assistant=bool(_ABOUT_ASSISTANT.search(folded)),
        recent=bool(_RECENT.search(folded)),
        first=bool(_FIRST.search(folded)),
        before=bool(_BEFORE.search(folded)),
        now=bool(_NOW.search(folded)),
        synonyms=_collect_synonyms(subjects, words),
    )


def find_subjects(words: set[str], text: str) -> set[str]:
    """The subjects of a question: by its words, and by Chinese words that occur anywhere in the text."""
    subjects = {subject for word in words for subject in _subjects_by_word().get(word, ())}
    for word, named in _subjects_by_word().items():
        if not word.isascii() and len(word) > 1 and word in text:
            subjects.update(named)
    return subjects


@cache
def get_subject_words(subject: str) -> frozenset[str]:
    """A subject's words, folded; English ones stemmed."""
    return frozenset(stem(fold_text(word)) for word in SUBJECTS[subject].split())


@cache
def _subjects_by_word() -> dict[str, tuple[str, ...]]:
    subjects: dict[str, tuple[str, ...]] = {}
    for subject in SUBJECTS:
        for word in get_subject_words(subject):
            subjects[word] = (*subjects.get(word, ()), subject)
    return subjects


def _collect_synonyms(subjects: set[str], words: Counter[str]) -> Counter[str]:
    synonyms: Counter[str] = Counter()
    for subject in subjects:
        for word in get_subject_words(subject):
            # Like the words of a text: pairs; a single character only where it is the whole word.
            terms = count_content_words(word)
            synonyms.update(term for term in terms if len(term) > 1 or len(word) == 1)
    return Counter({word: 1 for word in synonyms if word not in words})
