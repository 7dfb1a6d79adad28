"""How long real answers are: where the rows of a batch end when a chat model decides."""

import torch

from decoding.generation import generate
from decoding.text import load_text_model, padded

from .fingerprint import fingerprint
from .machine import machine
from .records import SCHEMA

#: Questions of the kind that people ask, whose answers are of very different lengths.
QUESTIONS = (
    "What is the capital of France?",
    "Is water wet? Answer yes or no.",
    "Name a colour.",
    "Why is the sky blue?",
    "Write one sentence about the sea.",
    "What is 7 times 8?",
    "Say hello to my grandmother.",
    "List three fruits.",
    "Who wrote Hamlet?",
    "Explain in one sentence what a GPU does.",
    "Translate 'good morning' into French.",
    "What day comes after Monday?",
    "Give me a short recipe for pancakes.",
    "What is the opposite of hot?",
    "How many legs does a spider have?",
    "Suggest a name for a black cat.",
)
#: The ends of a SmolLM2 chat: of a turn, and of a text.
ENDS = ("<|im_end|>", "<|endoftext|>")
NEW_TOKENS = 160


def answer_lengths(source, questions=QUESTIONS, max_new_tokens=NEW_TOKENS, rung="static_cache"):
    """Return a record of how many tokens a chat model answers each question with, on a CPU in float32.

    All questions are one batch, padded on the left; rows don't influence each other, so the lengths
    are those of any other batch, too.

    Args:
        source: as in ``load_text_model``; a model with the ``ENDS``.
        questions: texts.
        max_new_tokens: where an answer that has not ended is cut.
        rung: a name in ``RUNGS``.

    Returns:
        A dict: ``questions``, ``tokens`` (for each the tokens of its answer, its end included),
        ``ended`` (for each whether it ended by itself), ``answers`` as text, ``max_new_tokens``,
        ``model``, ``machine``.
    """
    model, tokenizer = load_text_model(source, device="cpu", dtype=torch.float32)
    ids = encode(tokenizer, questions)
    ends = tokenizer.convert_tokens_to_ids(list(ENDS))
    view = padded(model, tokenizer.pad_token_id)
    told = generate(view, ids, rung=rung, max_new_tokens=max_new_tokens, eos_token_id=ends)[
        :, ids.shape[1] :
    ]
    is_end = torch.isin(told, torch.tensor(ends))
    ended = is_end.any(dim=1)
    tokens = torch.where(ended, is_end.int().argmax(dim=1) + 1, told.shape[1])
    return {
        "schema": SCHEMA,
        "model": str(getattr(source, "name", source)),
        "questions": list(questions),
        "tokens": tokens.tolist(),
        "ended": ended.tolist(),
        "answers": tokenizer.batch_decode(told, skip_special_tokens=True),
        "max_new_tokens": max_new_tokens,
        "machine": machine() | {"code": fingerprint([rung, "real_text"])},
    }


def encode(tokenizer, questions):
    """Return the questions as chats, padded to one length: int64 [questions, longest]."""
    chats = [[{"role": "user", "content": question}] for question in questions]
    options = {"add_generation_prompt": True, "padding": True, "return_tensors": "pt"}
    return tokenizer.apply_chat_template(chats, return_dict=True, **options).input_ids
