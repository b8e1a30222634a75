"""From conversations to token ids and labels: encoding, the limit of length, flat arrays, and their cache."""

from elysia.data.tokenize.arrays import TokenizedSet, TokenizedSource, concatenate, select_samples
from elysia.data.tokenize.encoder import ConversationEncoder, encode, encode_prompt
from elysia.data.tokenize.sample_tokenizer import Overlong, TokenizeOptions, tokenize_samples
from elysia.data.tokenize.source_tokenizer import tokenize_source

__all__ = [
    "ConversationEncoder",
    "Overlong",
    "TokenizeOptions",
    "TokenizedSet",
    "TokenizedSource",
    "concatenate",
    "encode",
    "encode_prompt",
    "select_samples",
    "tokenize_samples",
    "tokenize_source",
]
