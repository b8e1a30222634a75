"""From what was written to what is said: strip, normalise, phonemes.

Standard library, pypinyin, jieba and eng_to_ipa; nothing here knows a model or makes a sound.
"""
