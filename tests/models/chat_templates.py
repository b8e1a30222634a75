"""Chat templates of today's models, written out from the formats that their makers publish.

Each is (source, bos token, eos token). They are ours, shorter than the originals, but write the same text for
talks of system, user and assistant messages.
"""

_ALTERNATE = (
    "{% for m in rows %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate user/assistant/user/assistant') }}{% endif %}{% endfor %}"
)
_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_CHATML_DEFAULT = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nDEFAULT<|im_end|>\n' }}{% endif %}"
    + _CHATML
)
_GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}SYSTEM{% else %}{% set rows = messages %}{% set first = '' %}"
    "{% endif %}"
    + _ALTERNATE
    + "{% for m in rows %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') + m.content | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
_LLAMA2 = (
    "{% if messages[0].role == 'system' %}{% set rows = messages[1:] %}{% set s = messages[0].content %}{% else %}"
    "{% set rows = messages %}{% set s = none %}{% endif %}" + _ALTERNATE + "{% for m in rows %}"
    "{% if m.role == 'user' %}{% set text = '<<SYS>>\n' + s + '\n<</SYS>>\n\n' + m.content if loop.first and s is "
    "not none else m.content %}{{ bos_token + '[INST] ' + text | trim + ' [/INST]' }}{% else %}"
    "{{ ' ' + m.content | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
_MISTRAL = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('Only user and assistant roles are supported!') }}"
    "{% endif %}{% set rows = messages %}{{ bos_token }}"
    + _ALTERNATE
    + "{% for m in rows %}{% if m.role == 'user' %}"
    "{{ '[INST]GAP' + m.content + '[/INST]' }}{% else %}{{ 'GAP' + m.content + eos_token }}{% endif %}{% endfor %}"
)
_QWEN3 = (
    "{% set ns = namespace(last=messages|length - 1, found=false) %}{% for m in messages[::-1] %}"
    "{% if not ns.found and m.role == 'user' %}{% set ns.last = messages|length - 1 - loop.index0 %}"
    "{% set ns.found = true %}{% endif %}{% endfor %}{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% set text = m.content %}{% set thought = '' %}{% if '</think>' in text %}"
    "{% set thought = text.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
    "{% set text = text.split('</think>')[-1].lstrip('\n') %}{% endif %}{{ '<|im_start|>assistant\n' }}"
    "{% if loop.index0 > ns.last and (loop.last or thought) %}{{ '<think>\n' + thought.strip('\n') + "
    "'\n</think>\n\n' + text.lstrip('\n') }}{% else %}{{ text }}{% endif %}{{ '<|im_end|>\n' }}{% else %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% if enable_thinking is defined and "
    "enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
_SMOLLM3 = (
    "{{ '<|im_start|>system\n## Metadata\n\nReasoning Mode: ' + ('/think' if enable_thinking else '/no_think') + '\n' }}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content + '\n' }}{% set rows = messages[1:] %}{% else %}"
    "{% set rows = messages %}{% endif %}{{ '<|im_end|>\n' }}{% for m in rows %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% generation %}{{ m.content.lstrip('\n') + '<|im_end|>\n' }}{% endgeneration %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% if not enable_thinking %}"
    "{{ '<think>\n\n</think>\n' }}{% endif %}{% endif %}"
)
_LLAMA3 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set s = messages[0].content | trim %}"
    "{% set rows = messages[1:] %}{% else %}{% set s = '' %}{% set rows = messages %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n\n' + s + '<|eot_id|>' }}"
    "{% for m in rows %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_PHI3 = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
_PHI4 = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)
_GLM4 = (
    "[gMASK]<sop>{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
_MINICPM = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<用户>' + m.content.strip() + '<AI>' }}{% else %}"
    "{{ m.content.strip() }}{% endif %}{% endfor %}"
)
_DEEPSEEK_V2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ 'User: ' + m.content + '\n\n' }}"
    "{% elif m.role == 'assistant' %}{{ 'Assistant: ' + m.content + eos_token }}{% else %}{{ m.content + '\n\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
_DEEPSEEK_V3 = (
    "{% set ns = namespace(s='') %}{% for m in messages %}{% if m.role == 'system' %}{% set ns.s = ns.s + m.content %}"
    "{% endif %}{% endfor %}{{ bos_token + ns.s }}{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '<｜User｜>' + m.content }}{% elif m.role == 'assistant' %}{% set text = m.content %}{% if '</think>' in text %}"
    "{% set text = text.split('</think>')[-1] %}{% endif %}{{ '<｜Assistant｜>' + text + eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"
)
_OLMO2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|assistant|>\n' + m.content + eos_token }}"
    "{% if not loop.last %}{{ '\n' }}{% endif %}{% else %}{{ '<|' + m.role + '|>\n' + m.content + '\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
_GRANITE = (
    "{% if messages[0].role != 'system' %}{{ '<|start_of_role|>system<|end_of_role|>Knowledge Cutoff Date: April 2024."
    "<|end_of_text|>\n' }}{% endif %}{% for m in messages %}{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + "
    "m.content + '<|end_of_text|>\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"
)
_HARMONY = (
    "{{ '<|start|>system<|message|>You are ChatGPT.\nReasoning: medium<|end|>' }}{% if messages[0].role == 'system' %}"
    "{{ '<|start|>developer<|message|># Instructions\n\n' + messages[0].content + '\n\n<|end|>' }}"
    "{% set rows = messages[1:] %}{% else %}{% set rows = messages %}{% endif %}{% for m in rows %}"
    "{% if '<|channel|>' in m.content %}{{ raise_exception('no channels in messages') }}{% endif %}"
    "{% if m.role == 'user' %}{{ '<|start|>user<|message|>' + m.content + '<|end|>' }}"
    "{% elif loop.last and not add_generation_prompt %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|return|>' }}{% else %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
_COMMAND_R = (
    "{{ bos_token }}{% for m in messages %}{% set role = {'system': 'SYSTEM', 'user': 'USER', 'assistant': 'CHATBOT'}"
    "[m.role] %}{{ '<|START_OF_TURN_TOKEN|><|' + role + '_TOKEN|>' + m.content.strip() + '<|END_OF_TURN_TOKEN|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
)
_REFUSED = "{{ raise_exception('System role not supported') }}"
_IN_FRONT = "{% set rows = messages[1:] %}{% set first = messages[0].content + '\n\n' %}"

CHAT_TEMPLATES = {
    "qwen2.5": (_CHATML_DEFAULT, "", "<|im_end|>"),
    "qwen3": (_QWEN3, "", "<|im_end|>"),
    "llama3.2": (_LLAMA3, "<|begin_of_text|>", "<|eot_id|>"),
    "llama2": (_LLAMA2, "<s>", "</s>"),
    "gemma2": (_GEMMA.replace("SYSTEM", _REFUSED), "<bos>", "<eos>"),
    "gemma3": (_GEMMA.replace("SYSTEM", _IN_FRONT), "<bos>", "<eos>"),
    "mistral-v0.3": (_MISTRAL.replace("GAP", " "), "<s>", "</s>"),
    "mistral-tekken": (_MISTRAL.replace("GAP", ""), "<s>", "</s>"),
    "phi3": (_PHI3, "<s>", "<|endoftext|>"),
    "phi4": (_PHI4, "<|endoftext|>", "<|im_end|>"),
    "internlm3": ("{{ bos_token }}" + _CHATML, "<s>", "</s>"),
    "smollm2": (_CHATML_DEFAULT, "<|im_start|>", "<|im_end|>"),
    "smollm3": (_SMOLLM3, "", "<|im_end|>"),
    "glm4": (_GLM4, "", "<|endoftext|>"),
    "minicpm": (_MINICPM, "<s>", "</s>"),
    "deepseek-v2": (_DEEPSEEK_V2, "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "deepseek-v3": (_DEEPSEEK_V3, "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "olmo2": (_OLMO2, "<|endoftext|>", "<|endoftext|>"),
    "granite": (_GRANITE, "<|end_of_text|>", "<|end_of_text|>"),
    "gpt-oss": (_HARMONY, "<|startoftext|>", "<|return|>"),
    "command-r": (_COMMAND_R, "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"),
}
