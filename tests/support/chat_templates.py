"""Chat templates of the kinds that models come with: what each does with what was said."""

from __future__ import annotations

_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_ALTERNATING = (
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
)

TEMPLATES = {
    "chatml": _CHATML,
    "chatml with a default system message": "{% if messages[0].role != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}" + _CHATML,
    "chatml with marks for training": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}"
    "{% endgeneration %}{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    # Thinking is cut from the replies before the last question, and set anew in those behind it.
    "qwen 3": """
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last_query=messages|length - 1) %}
{%- for m in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and m.role == 'user' %}
        {%- set ns.searching = false %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for m in messages %}
    {%- if m.role == 'user' or (m.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
    {%- elif m.role == 'assistant' %}
        {%- set content = m.content %}
        {%- set thought = '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1] %}
            {%- set thought = thought.lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.last_query and (loop.last or thought) %}
            {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}""",
    # Thinking is asked for, and cut from all replies.
    "deepseek r1": """
{%- set ns = namespace(system='') %}
{%- for m in messages %}{%- if m.role == 'system' %}{%- set ns.system = m.content %}{%- endif %}
{%- endfor %}{{- bos_token }}{{- ns.system }}
{%- for m in messages %}
    {%- if m.role == 'user' %}{{- '<|User|>' + m.content }}{%- endif %}
    {%- if m.role == 'assistant' %}
        {%- set content = m.content %}
        {%- if '</think>' in content %}{%- set content = content.split('</think>')[-1] %}
        {%- endif %}{{- '<|Assistant|>' + content + eos_token }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|Assistant|><think>\\n' }}{%- endif %}""",
    # Thinking is always there, be it empty.
    "glm 4.5": "[gMASK]<sop>{% for m in messages %}{% if m.role == 'user' %}{{ '<|user|>\\n' }}"
    "{{ m.content }}{% elif m.role == 'assistant' %}{{ '<|assistant|>' }}"
    "{% set content = m.content.split('</think>')[-1] %}{{ '\\n<think></think>' }}"
    "{% if content.strip() %}{{ '\\n' + content.strip() }}{% endif %}"
    "{% else %}{{ '<|system|>\\n' + m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
    "llama 2": "{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}"
    "{% set system = messages[0].content %}{% else %}{% set rest = messages %}"
    "{% set system = false %}{% endif %}{% for m in rest %}" + _ALTERNATING + "{% if loop.first "
    "and system %}{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + m.content %}"
    "{% else %}{% set content = m.content %}{% endif %}{% if m.role == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% else %}"
    "{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "llama 3": "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + "
    "'<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
    "llama 3.2, with the day": "{{ bos_token }}{{ '<|start_header_id|>system<|end_header_id|>\\n\\n"
    "Today: ' + strftime_now('%d %b %Y') + '\\n\\n' }}{% if messages[0].role == 'system' %}"
    "{{ messages[0].content | trim }}{% set messages = messages[1:] %}{% endif %}<|eot_id|>"
    "{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + "
    "m.content | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
    # The system message stands in the last question.
    "mistral 0.3": "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}{{ bos_token }}"
    "{% for m in rest %}" + _ALTERNATING + "{% endfor %}{% for m in rest %}"
    "{% if m.role == 'user' %}{% if loop.last and system is defined %}"
    "{{ '[INST] ' + system + '\\n\\n' + m.content + '[/INST]' }}{% else %}"
    "{{ '[INST] ' + m.content + '[/INST]' }}{% endif %}{% else %}{{ ' ' + m.content + eos_token }}"
    "{% endif %}{% endfor %}",
    "gemma": "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    + _ALTERNATING
    + "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + "
    "'\\n' + m.content | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<start_of_turn>model\\n' }}{% endif %}",
    "gemma 3": "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{% if messages[0].content is string %}{% set system = messages[0].content + '\\n\\n' %}"
    "{% else %}{% set system = messages[0].content[0].text + '\\n\\n' %}{% endif %}"
    "{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + "
    "'\\n' + (system if loop.first and system is defined else '') }}"
    "{% if m.content is string %}{{ m.content | trim }}"
    "{% else %}{% for part in m.content %}{% if part.type == 'text' %}{{ part.text | trim }}"
    "{% endif %}{% endfor %}{% endif %}{{ '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
    # No branch for a system message: it is dropped in silence.
    "phi 3": "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '<|user|>\\n' + m.content + '<|end|>\\n<|assistant|>\\n' }}"
    "{% elif m.role == 'assistant' %}{{ m.content + '<|end|>\\n' }}{% endif %}{% endfor %}",
    "zephyr": "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + eos_token + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}",
    "command r": "{{ bos_token }}{% for m in messages %}{% set who = {'user': 'USER', 'system': "
    "'SYSTEM', 'assistant': 'CHATBOT'}[m.role] %}{{ '<|START_OF_TURN_TOKEN|><|' + who + '_TOKEN|>' "
    "+ m.content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}",
    "granite": "{% for m in messages %}{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + "
    "m.content + '<|end_of_text|>\\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}",
    "llama 4": "{{ bos_token }}{% for m in messages %}{{ '<|header_start|>' + m.role + "
    "'<|header_end|>\\n\\n' }}{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}"
    "{% endif %}{{ '<|eot|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|header_start|>assistant<|header_end|>\\n\\n' }}{% endif %}",
    "vicuna": "{% for m in messages %}{% if m.role == 'user' %}{{ 'USER: ' + m.content + ' ' }}"
    "{% elif m.role == 'assistant' %}{{ 'ASSISTANT: ' + m.content + eos_token }}"
    "{% else %}{{ m.content + ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
}
"""Templates by the models they are like. All of them take texts."""

PARTS_ONLY = {
    "smolvlm": "<|im_start|>{% for m in messages %}{{ m.role | capitalize + ':' }}"
    "{% for part in m.content %}{% if part['type'] == 'text' %}{{ ' ' + part['text'] }}"
    "{% elif part['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
    "llava": "{% for m in messages %}{% if m.role == 'user' %}[INST] "
    "{% for part in m.content | selectattr('type', 'equalto', 'text') %}{{ part['text'] }}"
    "{% endfor %} [/INST]{% elif m.role == 'assistant' %}{{ ' ' + m.content[0]['text'] }}"
    "{{ eos_token }}{% endif %}{% endfor %}",
    "questions alone": "{% for m in messages %}{% if m.role == 'user' %}{{ 'Q:' }}"
    "{% for part in m.content %}{{ part.text }}{% endfor %}{% else %}"
    "{{ m.role[0] | upper + ':' + m.content }}{% endif %}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}A:{% endif %}",
}
"""Templates that read a question as a list of parts, and write nothing of a text."""

OF_TOOLS = {
    # As Qwen 2.5: answers of tools stand in a turn of the user, one or several.
    "qwen 2.5": "{% for m in messages %}{% if m.role == 'tool' %}"
    "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}"
    "{% endif %}{{ '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\\n' }}{% endif %}"
    "{% elif m.tool_calls %}{{ '<|im_start|>assistant' }}{% if m.content %}{{ '\\n' + m.content }}"
    '{% endif %}{% for call in m.tool_calls %}{{ \'\\n<tool_call>\\n{"name": "\' + '
    'call.function.name + \'", "arguments": \' + call.function.arguments | tojson '
    "+ '}\\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\\n' }}"
    "{% else %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    # As Mistral: identifiers of nine characters, answers as JSON, the others take turns.
    "mistral nemo": "{% set ns = namespace(index=0) %}{% for m in messages %}"
    "{% if m.role == 'user' or (m.role == 'assistant' and m.tool_calls is undefined) %}"
    "{% if (m.role == 'user') != (ns.index % 2 == 0) %}"
    "{{ raise_exception('After the system message, roles must alternate user/assistant') }}"
    "{% endif %}{% set ns.index = ns.index + 1 %}{% endif %}{% endfor %}{{ bos_token }}"
    "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST]' + m.content + '[/INST]' }}"
    "{% elif m.tool_calls is defined %}{{ '[TOOL_CALLS][' }}{% for call in m.tool_calls %}"
    "{% if call.id is undefined or call.id | length != 9 %}"
    "{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}"
    "{% endif %}{{ call.function | tojson }}{{ ', \"id\": \"' + call.id + '\"}' }}"
    "{{ '' if loop.last else ', ' }}{% endfor %}{{ ']' + eos_token }}"
    "{% elif m.role == 'assistant' %}{{ m.content + eos_token }}{% elif m.role == 'tool' %}"
    '{{ \'[TOOL_RESULTS]{"content": \' + m.content | tojson + \', "call_id": "\' '
    "+ m.tool_call_id + '\"}[/TOOL_RESULTS]' }}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported, and tools') }}{% endif %}"
    "{% endfor %}",
    # As Llama 3.1: one call in a message, behind which its own text is left out.
    "llama 3.1": "{{ bos_token }}{% for m in messages %}{% if m.tool_calls is defined %}"
    "{% if m.tool_calls | length != 1 %}"
    "{{ raise_exception('This model only supports single tool-calls at once!') }}{% endif %}"
    '{{ \'<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "\' + '
    'm.tool_calls[0].function.name + \'", "parameters": \' + '
    "m.tool_calls[0].function.arguments | tojson + '}<|eot_id|>' }}{% elif m.role == 'tool' %}"
    "{{ '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + m.content | tojson + '<|eot_id|>' }}"
    "{% else %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim "
    "+ '<|eot_id|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
}
"""Templates that write the calls of tools, and what these answered."""

_CHATML_TURNS = _CHATML.split("{% if add_generation_prompt")[0]
_ASSISTANT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
_NO_THOUGHT = "{{ '<think>\\n\\n</think>\\n\\n' }}"

SWITCHED: dict[str, tuple[str, str, object, object]] = {
    "qwen 3": (
        _CHATML_TURNS + _ASSISTANT + "{% if enable_thinking is defined and enable_thinking is false"
        " %}" + _NO_THOUGHT + "{% endif %}{% endif %}",
        *("enable_thinking", True, False),
    ),
    # The default is set in the template; told yes, thinking is begun for the model.
    "laguna": (
        "{%- set enable_thinking = enable_thinking | default(false) -%}"
        + _CHATML_TURNS + _ASSISTANT + "{{ '<think>\\n' if enable_thinking else '</think>\\n' }}"
        "{% endif %}",
        *("enable_thinking", True, False),
    ),
    "granite 3.2": (
        "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
        "{% set rest = messages[1:] %}{% else %}{% set rest = messages %}"
        "{% set system = 'You are Granite.' %}{% if thinking %}{% set system = system + "
        "' Write down your thoughts first.' %}{% endif %}{% endif %}"
        "{{ '<|im_start|>system\\n' + system + '<|im_end|>\\n' }}"
        + _CHATML_TURNS.replace("in messages", "in rest") + _ASSISTANT + "{% endif %}",
        *("thinking", True, False),
    ),
    "deepseek v3.1": (
        "{%- if not thinking is defined -%}{%- set thinking = false -%}{%- endif -%}"
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}"
        "{% elif m.role == 'user' %}{{ '<|User|>' + m.content }}{% else %}"
        "{{ '<|Assistant|></think>' + m.content.split('</think>')[-1] + eos_token }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|Assistant|>' }}"
        "{{ '<think>' if thinking else '</think>' }}{% endif %}",
        *("thinking", True, False),
    ),
    # Told no, the question says so.
    "glm 4.5": (
        "[gMASK]<sop>{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content }}"
        "{% if m.role == 'user' and enable_thinking is defined and not enable_thinking %}"
        "{{ '/nothink' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}"
        "{% if enable_thinking is defined and not enable_thinking %}{{ '\\n<think></think>' }}"
        "{% endif %}{% endif %}",
        *("enable_thinking", True, False),
    ),
    "minimax m3": (
        _CHATML_TURNS + _ASSISTANT + "{% if thinking_mode is defined and thinking_mode == 'enabled'"
        " %}{{ '<think>\\n' }}{% elif thinking_mode is defined and thinking_mode == 'disabled' %}"
        + _NO_THOUGHT + "{% endif %}{% endif %}",
        *("thinking_mode", "enabled", "disabled"),
    ),
    "seed oss": (
        "{%- if not thinking_budget is defined -%}{%- set thinking_budget = -1 -%}{%- endif -%}"
        "{% if thinking_budget == 0 %}{{ '<|im_start|>system\\nDo not think.<|im_end|>\\n' }}"
        "{% elif thinking_budget != -1 %}{{ 'Think by %d tokens.' % thinking_budget }}"
        "{% endif %}" + _CHATML,
        *("thinking_budget", -1, 0),
    ),
    # Refuses a conversation without a system message.
    "insisting": (
        "{% if messages[0].role != 'system' %}{{ raise_exception('say who I am') }}{% endif %}"
        + _CHATML + "{% if enable_thinking %}{{ '<think>' }}{% endif %}",
        *("enable_thinking", True, False),
    ),
}  # fmt: skip
"""Templates with a switch for thinking, each with its name and its values for on and off."""

UNSWITCHED = {
    "its own": "{% set enable_thinking = true %}{% if enable_thinking %}{% endif %}" + _CHATML,
    "of a namespace": "{% set ns = namespace(thinking=true) %}{% if ns.thinking %}{% endif %}"
    + _CHATML,
    "of a message": _CHATML.replace("{% for m in messages %}", "{% for m in messages %}"
    "{% if m.thinking %}{{ m.thinking }}{% endif %}"),
    "without effect": "{% if enable_thinking %}{% endif %}" + _CHATML,
    "only with tools": "{% if tools and enable_thinking %}<think>{% endif %}" + _CHATML,
    "in a comment": "{# enable_thinking #}" + _CHATML,
    "of another kind": "{% if preserve_thinking %}<think>{% endif %}" + _CHATML,
    "broken": "{% if enable_thinking %}",
}  # fmt: skip
"""Templates that have no switch, though a word in them may look like one."""
