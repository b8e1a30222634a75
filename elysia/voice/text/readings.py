"""Words whose sound pypinyin's phrases do not give: readings, and second syllables that are light.

A table, no code that decides: `mandarin.py` asks it first.
"""

from __future__ import annotations

# One pinyin a character, with tone marks.
READINGS = {
    "爱莉希雅": "ài lì xī yǎ", "行长": "háng zhǎng", "还给": "huán gěi", "还书": "huán shū",
    "还钱": "huán qián", "还债": "huán zhài", "朝阳区": "cháo yáng qū", "跑得快": "pǎo de kuài",
    "数一数": "shǔ yī shǔ", "落下": "luò xià", "嗯": "èn", "诶": "éi", "哦": "ò", "长发": "cháng fà",
    "背书包": "bēi shū bāo", "两只": "liǎng zhī", "佛": "fó",
}  # fmt: skip

# The last syllable of these is light (轻声) in standard speech.
_LIGHT = """
妈妈 爸爸 哥哥 姐姐 弟弟 妹妹 爷爷 奶奶 公公 婆婆 叔叔 舅舅 太太 娃娃 星星 猩猩
宝宝 谢谢 宝贝 朋友 东西 喜欢 漂亮 衣服 月亮 先生 姑娘 眼睛 耳朵 时候 认识 告诉
明白 干净 舒服 聪明 知识 部分 晚上 早上 地方 客气 不客气 消息 休息 关系 没关系 窗户
太阳 头发 嘴巴 脑袋 故事 事情 生意 学生 医生 热闹 麻烦 便宜 打听 打算 商量 收拾
答应 招呼 打招呼 琢磨 糊涂 糊弄 凉快 结实 扎实 老实 厉害 利索 清楚 痛快 勤快 马虎
迷糊 模糊 客人 丈夫 媳妇 丫头 亲戚 邻居 师傅 护士 大夫 裁缝 木匠 豆腐 馒头 萝卜
葡萄 石榴 云彩 庄稼 牲口 骆驼 狐狸 苍蝇 蘑菇 玻璃 钥匙 扫帚 灯笼 包袱 行李 胳膊
指甲 屁股 力气 脾气 福气 运气 本事 动静 工夫 记性 见识 名字 年纪 精神 意识 心思
学问 交情 规矩 毛病 笑话 应酬 耽误 吩咐 嘱咐 念叨 唠叨 折腾 咳嗽 哆嗦 合同 官司
买卖 委屈 稀罕 新鲜 暖和 软和 困难 窟窿
"""
LIGHT = frozenset(_LIGHT.split())
