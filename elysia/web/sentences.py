"""What the chat service says, in Chinese: its sentences are English wherever they are raised or kept.

A table from sentence to sentence, `{}` for each value, so that the service need not know who reads and
a fault that was kept yesterday is shown in today's language. What is not in it (a driver's fault, an
engine's) stays as it is. Knows nothing of where it is shown.
"""

from __future__ import annotations

import re
from functools import cache

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
