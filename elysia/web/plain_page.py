"""The pages before the page: a login, a wait, a fault. Whole HTML without scripts, every text escaped.

Knows nothing of users or passwords.
"""

from __future__ import annotations

from html import escape

WORDS = {
    "zh": {
        "title": "爱莉希雅",
        "waking": "她正在醒来……模型载入后，这一页会自己打开。",
        "fault": "现在还不能聊天",
        "name": "名字",
        "password": "密码",
        "enter": "进来吧",
        "wrong": "名字或密码不对。",
        "many": "试错太多次了，请等一分钟。",
        "origin": "这张表单不是从本页发出的。",
    },
    "en": {
        "title": "Elysia",
        "waking": "She is waking up… This page opens by itself once the model is loaded.",
        "fault": "Nobody can talk yet",
        "name": "Name",
        "password": "Password",
        "enter": "Come in",
        "wrong": "Name or password is wrong.",
        "many": "Too many wrong passwords; wait a minute.",
        "origin": "This form was not sent from this page.",
    },
}
STYLE = """
:root { color-scheme: light dark; --back: #fff8fa; --card: #fff; --text: #3b2b35;
  --accent: #d6577f; --line: #f3d7e0 }
@media (prefers-color-scheme: dark) {
  :root { --back: #1d171c; --card: #292028; --text: #f5e9ef; --accent: #f28bab; --line: #44333f } }
body { margin: 0; min-height: 100vh; display: grid; place-items: center;
  background: var(--back); color: var(--text);
  font: 16px/1.6 "Source Sans 3", "Noto Sans SC", "Noto Sans CJK SC", system-ui, sans-serif }
main { box-sizing: border-box; width: min(24rem, calc(100vw - 2rem)); padding: 2rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 1.2rem }
h1 { margin: 0 0 1rem; font-size: 1.4rem; color: var(--accent) }
label { display: block; margin: .8rem 0 .2rem }
input { box-sizing: border-box; width: 100%; font: inherit; padding: .5rem .7rem;
  border: 1px solid var(--line); border-radius: .6rem; background: var(--back); color: inherit }
button { width: 100%; margin-top: 1.2rem; padding: .6rem; font: inherit; border: 0; border-radius: .6rem;
  background: var(--accent); color: #fff; cursor: pointer }
p { overflow-wrap: anywhere } .wrong { color: #d32f2f }
"""


def language_of(accepted: str) -> str:
    """zh or en, from an Accept-Language header.

    >>> language_of("zh-CN,zh;q=0.9,en;q=0.8"), language_of("de, en;q=0.5"), language_of("")
    ('zh', 'en', 'en')
    """
    return "zh" if accepted.strip().lower().startswith("zh") else "en"


def waking(language: str) -> str:
    """Shown while the model loads; looks again by itself."""
    said = WORDS[language]
    return _page(language, f"<p>{escape(said['waking'])}</p>", refresh=True)


def fault(language: str, sentence: str) -> str:
    """What is wrong, and what to do."""
    said = WORDS[language]
    return _page(language, f"<p>{escape(said['fault'])}</p><p>{escape(sentence)}</p>")


def login(language: str, wrong: str = "") -> str:
    """The form; `wrong` is one of 'wrong', 'many', 'origin'."""
    said = WORDS[language]
    told = f'<p class="wrong" role="alert">{escape(said[wrong])}</p>' if wrong else ""
    return _page(
        language,
        f"""{told}<form method="post" action="/login">
<label for="name">{escape(said["name"])}</label>
<input id="name" name="name" autocomplete="username" required maxlength="100" autofocus>
<label for="password">{escape(said["password"])}</label>
<input id="password" name="password" type="password" autocomplete="current-password" required>
<button>{escape(said["enter"])}</button></form>""",
    )


def _page(language: str, body: str, *, refresh: bool = False) -> str:
    again = '<meta http-equiv="refresh" content="2">' if refresh else ""
    title = escape(WORDS[language]["title"])
    return (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8">{again}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>"
        f"<body><main><h1>{title}</h1>{body}</main></body></html>"
    )
