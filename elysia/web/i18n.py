"""What the pages say, in Chinese and in English; a test holds both to the same keys.

Knows nothing of where it is shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

LANGUAGES = {"zh": "中文", "en": "English"}

# key: (Chinese, English)
WORDS: dict[str, tuple[str, str]] = {
    "title": ("爱莉希雅", "Elysia"),
    "tagline": ("坐下来，慢慢聊。", "Sit down; there is time."),
    # Side
    "new_talk": ("新的对话", "New talk"),
    "search": ("搜索对话", "Search talks"),
    "no_talks": ("还没有对话。", "No talks yet."),
    "nothing_found": ("没有找到。", "Nothing found."),
    "more_talks": ("更多", "More"),
    "language": ("语言", "Language"),
    "logged_in": ("你是 {name}", "You are {name}"),
    "log_out": ("退出登录", "Log out"),
    "log_in": ("登录", "Log in"),
    "log_in_first": ("请先登录。", "Please log in first."),
    # Gallery
    "choose": ("今天想和谁聊？", "Who would you like to talk to?"),
    "choose_more": (
        "选一位，就两个人聊；选几位，就开一桌茶话会。",
        "Choose one for a talk of two, several for a table of friends.",
    ),
    "talk_to": ("聊聊", "Talk"),
    "seat": ("入座", "Seat"),
    "seated": ("已入座", "Seated"),
    "start": ("开始聊天", "Start"),
    "start_group": ("开茶话会（{count} 位）", "Sit down, {count} of you"),
    "import_card": ("带一位新角色来", "Bring a character"),
    "import_help": (
        "角色卡：PNG、JSON 或 CHARX，最大 20 MB",
        "A character card: PNG, JSON or CHARX, up to 20 MB",
    ),
    "imported": ("{name} 来了。", "{name} has come."),
    "about": ("关于", "About"),
    "remove_card": ("移除角色", "Remove"),
    "by": ("作者：{name}", "by {name}"),
    "greetings": ("{count} 种开场", "{count} greetings"),
    "lore_count": ("{count} 条设定", "{count} lore entries"),
    "really": ("确定？无法恢复。", "Sure? It cannot be undone."),
    "yes_remove": ("确定移除", "Yes, remove"),
    # Talk
    "say": ("说点什么……", "Say something…"),
    "view_talk": ("聊天", "Talk"),
    "view_memory": ("记忆", "Memory"),
    "view_documents": ("资料", "Documents"),
    "view_settings": ("设置", "Settings"),
    "more": ("更多", "More"),
    "rename": ("改名", "Rename"),
    "name_of_talk": ("对话的名字", "Name of the talk"),
    "save": ("保存", "Save"),
    "cancel": ("取消", "Cancel"),
    "export": ("导出 (JSONL)", "Export (JSONL)"),
    "prepare_export": ("准备导出", "Prepare the export"),
    "import_talk": ("导入对话 (JSONL)", "Import a talk (JSONL)"),
    "delete_talk": ("删除这个对话", "Delete this talk"),
    "delete_talk_help": ("对话和由它记住的事都会消失。", "The talk and what was remembered of it are gone."),
    "earlier": ("显示更早的 {count} 条", "Show {count} earlier messages"),
    "stop": ("停", "Stop"),
    "thinking": ("……", "…"),
    "again": ("重新回答", "Answer anew"),
    "try_again": ("再试一次", "Try again"),
    "edit": ("修改", "Edit"),
    "delete": ("删除这条及之后", "Delete from here on"),
    "undo": ("撤回", "Undo"),
    "undone": ("已撤回：{text}", "Taken back: {text}"),
    "before": ("上一个分支", "Branch before"),
    "after": ("下一个分支", "Next branch"),
    "receipt": ("她看到了什么", "What she was told"),
    "listen": ("听", "Listen"),
    "edited": ("改过", "edited"),
    "was_stopped": ("停在这里", "stopped here"),
    "was_cut": ("被打断了", "cut short"),
    "at_limit": ("到了长度上限", "ended at the length limit"),
    "gone": ("她已不在这里：{name}", "Not here any more: {name}"),
    "you": ("你", "You"),
    "source": ("引用的原文", "The source"),
    # Why somebody speaks
    "reason": ("为什么是这位", "Why this one"),
    "because_again": ("请求重新回答", "asked to answer anew"),
    "because_only": ("只有一位", "the only one"),
    "because_named": ("你叫到的", "named by you"),
    "because_everyone": ("你问了大家", "everyone was asked"),
    "because_called": ("{name} 叫到的", "named by {name}"),
    "because_goes_on": ("接着刚才的话", "spoke last, and you go on with it"),
    "because_silent": ("最久没说话", "was silent longest"),
    # Receipt
    "entered": ("进入提示的内容", "What entered the prompt"),
    "tokens_line": (
        "提示 {prompt} / 上下文 {context} · 留给回答 {reply}",
        "prompt {prompt} of a context of {context} · {reply} kept for the reply",
    ),
    "part": ("部分", "part"),
    "tokens": ("词元", "tokens"),
    "system": ("人设", "card"),
    "talk": ("对话", "talk"),
    "lore": ("设定", "lore"),
    "memories": ("记忆", "memories"),
    "documents": ("资料", "documents"),
    "summary": ("小结", "summary"),
    "dropped": ("没有放下", "left out for room"),
    "left_out": ("更早的 {count} 条没有放进去。", "{count} earlier messages were left out."),
    "no_receipt": ("这条没有记录。", "There is no receipt for this message."),
    "whole_prompt": ("完整的提示", "The whole prompt"),
    "score": ("分数 {score}", "score {score}"),
    "timing": (
        "准备 {prepared:.0f} 毫秒 · 回答 {tokens} 词元",
        "prepared in {prepared:.0f} ms · {tokens} tokens of reply",
    ),
    # Memory
    "no_memory": ("这里没有开启记忆。", "There is no memory here."),
    "remembers": ("{name} 记得你的这些事", "What {name} remembers of you"),
    "remembers_nothing": ("她还什么都没记住。", "Nothing is remembered yet."),
    "facts": ("事实", "Facts"),
    "turns": ("说过的话", "Turns"),
    "correct": ("改正", "Correct"),
    "forget": ("忘记", "Forget"),
    "forget_all": ("全部忘记", "Forget everything"),
    "forgotten": ("忘了。", "Forgotten."),
    "replaced": ("已被新的取代", "replaced by a newer one"),
    "corrected": ("你改过", "corrected by you"),
    "whose": ("谁的记忆", "Whose memory"),
    # Documents
    "no_knowledge": ("这里没有开启资料库。", "There is no knowledge base here."),
    "shelf": ("{name} 的资料", "Documents for {name}"),
    "own_documents": ("你给的", "Yours"),
    "her_documents": ("她自带的", "Her own"),
    "upload": ("添加文件", "Add files"),
    "upload_help": (
        "txt、md、PDF、docx、html、csv、epub，每个最大 20 MB；只有你和她能看到。",
        "txt, md, PDF, docx, html, csv, epub, up to 20 MB each; only you and she see them.",
    ),
    "reading": ("在读 {name}", "Reading {name}"),
    "read": ("读完了 {name}：{spans} 段", "{name} is read; passages: {spans}"),
    "no_documents": ("还没有文件。", "No documents yet."),
    "spans": ("{spans} 段 · {characters} 字", "passages: {spans} · characters: {characters}"),
    "remove": ("移除", "Remove"),
    "ask_shelf": ("在资料里找", "Search the documents"),
    # Settings
    "preset": ("风格", "Preset"),
    "faithful": ("忠实", "Faithful"),
    "balanced": ("平衡", "Balanced"),
    "lively": ("活泼", "Lively"),
    "generation": ("生成", "Generation"),
    "max_length": ("最大长度", "Max length"),
    "top_p": ("Top P", "Top P"),
    "temperature": ("温度", "Temperature"),
    "top_k": ("Top K", "Top K"),
    "repetition": ("重复惩罚", "Repetition penalty"),
    "use_memory": ("使用记忆", "Use memory"),
    "use_documents": ("使用资料", "Use documents"),
    "use_examples": ("使用示例对话", "Use example dialogue"),
    "round": ("每轮最多几位说话", "Replies a round"),
    "who_you_are": ("你是谁", "Who you are"),
    "your_name": ("你的名字", "Your name"),
    "your_description": ("关于你（她会知道）", "About you (she is told)"),
    "system_prompt": ("系统提示（代替默认）", "System prompt (in place of the default)"),
    "table": ("在座的", "At the table"),
    "voice": ("声音", "Voice"),
    "voice_on": ("她念给你听", "She speaks"),
    "voice_own": ("各自的声音", "Each her own"),
    "voice_name": ("用哪个声音", "Which voice"),
    "speed": ("语速", "Speed"),
    # Faults
    "gone_talk": ("没有这个对话，可能已经删掉了。", "There is no such talk; it may have been deleted."),
    "too_large": ("{name} 太大了，最多 {limit} MB。", "{name} is too large; the limit is {limit} MB."),
    "busy": ("她还在写。", "She is still writing."),
    "openid_missing": (
        "OpenID 还没有配置：在 .streamlit/secrets.toml 里填写 [auth]（见 docs/web.md）。",
        "OpenID is not set up: fill [auth] in .streamlit/secrets.toml (see docs/web.md).",
    ),
    "not_allowed": (
        "{name} 不在可以进来的名单上。请联系开这个页面的人。",
        "{name} is not on the list of those who may come in. Ask whoever runs this page.",
    ),
}  # fmt: skip


def get_translator(language: str) -> Callable[..., str]:
    """A function from key (and values) to words.

    >>> get_translator("en")("seat"), get_translator("zh")("seat"), get_translator("en")("start_group", count=2)
    ('Seat', '入座', 'Sit down, 2 of you')
    """
    column = 0 if language == "zh" else 1

    def say(key: str, **values: object) -> str:
        said = WORDS[key][column]
        return said.format(**values) if values else said

    return say


CHINESE = {
    "There is no such conversation.": "没有这个对话，可能已经删掉了。",
    "There is no such message in this conversation.": "这个对话里没有这条消息，可能已经删掉了。",
    "There is no such character; it may have been removed.": "没有这个角色，可能已经移除了。",
    "She is still writing and does not stop; try again in a moment.": "她还在写，停不下来；请稍后再试。",
    "The program ended while she was writing. Try again.": "她写到一半时程序结束了。请再试一次。",
    "The reply failed by a mistake of ours: {}: {}.": "回答失败了，是程序的错误：{}: {}。",
    "The message with the character's card has {} tokens and the model's context is {}: there is no "
    "room for a reply. Shorten the message, or choose a shorter card or a model with a longer context.": (
        "这条消息加上角色卡有 {} 个词元，而模型的上下文只有 {}：没有地方写回答了。"
        "请缩短消息，或者换一张更短的角色卡，或者换一个上下文更长的模型。"
    ),
    "Write something first.": "请先写点什么。",
    "The message has {} characters; {} may be sent.": "这条消息有 {} 个字符，最多可以发 {} 个。",
    "Choose somebody to talk to.": "请选一位来聊天。",
    "Somebody must stay at the table.": "至少要有一位留在座上。",
    "Only a reply can be made anew.": "只有她的回答可以重新生成。",
    "A greeting is the card's own; there is nothing to make anew.": "开场白是角色卡自带的，不能重新生成。",
    "There is no further branch.": "没有更多的分支了。",
    "There is nothing to take back.": "没有可以撤回的消息。",
    "You have {} cards; remove one first.": "你已经有 {} 张角色卡了，请先移除一张。",
    "A bundled character stays.": "自带的角色不能移除。",
    "{} cannot be used: {}": "{} 不能用：{}",
    "round is {}; it must be 1 to 6.": "每轮说话的人数是 {}，应为 1 到 6。",
    "speed is {}; it must be 0.25 to 4.": "语速是 {}，应为 0.25 到 4。",
    "system and user may have 20,000 characters.": "系统提示和关于你的话最多各 20,000 个字符。",
    "Choose with whom the conversation was.": "请选择这个对话是和谁的。",
    "The file has more than {} MB.": "文件超过了 {} MB。",
    "The file has more than {} messages.": "文件里的消息超过了 {} 条。",
    "The file holds no message.": "文件里没有消息。",
    "The file is not UTF-8 (byte {}); save it as UTF-8.": "文件不是 UTF-8（第 {} 字节），请另存为 UTF-8。",
    "Line 1: the file is of a newer version; update Elysia.": "文件来自更新的版本，请先更新 Elysia。",
    "Line {} is not JSON; each line is one object.": "第 {} 行不是 JSON；每行应是一个对象。",
}


def in_language(sentence: str, language: str) -> str:
    """A sentence of the service in a page's language; one that is not known as it is.

    >>> in_language("The message has 7 characters; 5 may be sent.", "zh")
    '这条消息有 7 个字符，最多可以发 5 个。'
    """
    if language != "zh":
        return sentence
    for pattern, chinese in _patterns():
        if found := pattern.fullmatch(sentence):
            return chinese.format(*found.groups())
    return sentence


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    return [
        (re.compile("(.+?)".join(map(re.escape, english.split("{}"))), re.S), chinese)
        for english, chinese in CHINESE.items()
    ]
