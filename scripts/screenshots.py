"""Screenshots of every view for docs/web.md, with a stand-in engine that gives scripted replies.

    python scripts/screenshots.py [--output docs/images]

Needs chromium and the packages of requirements/web.lock and dev.lock.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.web.conftest import CHROMIUM, FLAGS, ROOT, served
from tests.web.steps import MESSAGE, act, begin, ready, say, upload, view

MOST = 190_000  # bytes of a screenshot
WIDE, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 780}
REPLIES = {
    "今天有点累": "那先把外套挂好，茶刚好七分烫。\n\n今天的累，是**事情太多**的那种，还是**没人听你说**的那种？前一种我陪你一件件放下，后一种我现在就听。",
    "香豌豆什么时候种": "秋天最好，*十月到十一月*，先把种子泡一晚 [1]。\n\n1. 泡水一夜\n2. 埋两指深\n3. 等它自己想出来\n\n等它爬到窗沿，我剪第一束给你。",
    "叫团子的猫": "团子！光听名字就想揉一揉。绵绵昨天还霸占着我的窗台，改天让它们认识认识？",
    "桌你是爱莉希雅": "晚上好呀！位子给你留着，今天的桃子布丁做多了，正好够一桌人。",
}
GROUP = {
    "桌你是小棠": "别听她的，布丁是我烤……呃，是我看着它自己好的。面包？面包在炉子里，大概还没焦。",
    "桌你是阿砚": "她说“大概”的时候，一般已经焦了。",
}
NOTES = """# 花房笔记

## 香豌豆

香豌豆秋天播种最好，十月到十一月，种子先泡水一夜，再埋两指深。出苗以后要给它一根绳子，它会自己爬到窗沿。

## 桃子布丁

牛奶小火，不要煮开；桃子选软的。放凉以后盖一片薄荷。
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
        rows = {**GROUP, **REPLIES}
        data = Path(folder)
        table = "\n".join(f"{key}\t{reply!r}" for key, reply in rows.items())
        (data / "replies.txt").write_text(table, encoding="utf-8")
        with served(data) as url:
            browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            everything(browser, url, output)
            browser.close()


def everything(browser: Browser, url: str, output: Path) -> None:
    page = opened(browser, url, WIDE)
    shoot(page, output / "gallery.png")
    group(page)
    shoot(page, output / "group.png")
    page.click(".st-key-new_talk button")
    begin(page)
    say(page, "今天有点累。")
    view(page, "资料")
    upload(
        page,
        "documents_",
        {"name": "花房笔记.md", "mimeType": "text/markdown", "buffer": NOTES.encode()},
    )
    page.locator('[class*="st-key-document_"]').wait_for()
    shoot(page, output / "documents.png")
    view(page, "聊天")
    page.wait_for_selector(MESSAGE)
    say(page, "我养了一只叫团子的猫。")
    say(page, "香豌豆什么时候种？")
    shoot(page, output / "talk-light.png")
    talk = page.url
    act(page, "receipt")
    page.locator('[role="dialog"]').wait_for()
    shoot(page, output / "receipt.png")
    page.keyboard.press("Escape")
    view(page, "记忆")
    page.locator('[class*="st-key-memory_"]').first.wait_for()
    shoot(page, output / "memory.png")
    view(page, "设置")
    page.locator('[class*="st-key-set_speed"]').wait_for()
    shoot(page, output / "settings.png")
    for name, size, dark in (("talk-dark", WIDE, True), ("phone", PHONE, False)):
        other = opened(browser, talk, size, dark=dark, message=True)
        shoot(other, output / f"{name}.png")
    phone = opened(browser, url + "/?lang=en", PHONE, dark=True)
    shoot(phone, output / "phone-gallery-dark.png")


def opened(
    browser: Browser, url: str, size: dict[str, int], *, dark: bool = False, message: bool = False
) -> Page:
    """A new window; in Chinese unless the URL says otherwise."""
    context = browser.new_context(
        locale="zh-CN", viewport=size, color_scheme="dark" if dark else "light",
        is_mobile=size is PHONE, has_touch=size is PHONE, device_scale_factor=1.5 if size is PHONE else 1,
    )  # fmt: skip
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector(MESSAGE if message else ".st-key-begin_elysia button")
    return page


def group(page: Page) -> None:
    for key in ("elysia", "xiaotang", "ayan"):
        page.locator(f".st-key-seat_{key} label").click()
        ready(page)
    page.click(".st-key-start button")
    page.wait_for_selector(MESSAGE)
    view(page, "设置")
    page.locator('[class*="st-key-set_round"]').wait_for()
    page.locator('[class*="st-key-set_round"] input').first.press("ArrowRight")
    ready(page)
    view(page, "聊天")
    page.wait_for_selector(MESSAGE)
    say(page, "大家晚上好！小棠、阿砚，你们都在呀。")


def shoot(page: Page, file: Path) -> None:
    """A screenshot of the window, with fewer colours where the file is too large."""
    ready(page)
    page.mouse.move(0, 0)
    page.wait_for_timeout(1500)
    with Image.open(io.BytesIO(page.screenshot())) as shot:
        shot.convert("RGB").save(file, optimize=True)
        if file.stat().st_size > MOST:
            shot.convert("RGB").quantize(256).save(file, optimize=True)
    print(f"{file.name}: {file.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
