"""Secrets in command lines, found by the names they go under."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

REDACTED = "[redacted]"

_NAME_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_PLURAL = re.compile(r"(?<=[a-z]{3})(?<!token)(?<!s)s$")
# Both are matched against a name's parts, in lower case and singular, joined by dashes.
_SECRET_NAME = re.compile(
    r"""(?:.*-)?
    (?: auth | authentication | authorization | bearer | cookie | cred | credential | jwt | oauth | webhook
      | \w*(?: secret | password | passwd | passphrase | (?:access|api|auth|private|secret)key
             | (?:access|api|auth|hf)token )
      | (?: access | account | api | deploy | encryption | hmac | license | master | private | service
          | signing | ssh | storage | subscription )-key
      | (?: access | api | github | gitlab | hf | refresh | sas | session )-token
      | (?: db | smtp | user )-pass
      | connection-string
    )(?:-.*)?
    | (?:.*-)?(?: token | pwd )""",
    re.VERBOSE,
)
# No secrets: where one is kept, and the tokens of a text, as in pad_token or loss_per_token.
_PLAIN_NAME = re.compile(
    r""".*-(?: dir | directory | file | path )
    | (?:.*-)?(?: added | additional | audio | begin | blank | boi | bos | char | class | cls | decoder | dist
      | distillation | dummy | end | eod | eoi | eol | eos | eot | extra | fim | first | forced | image | last
      | latent | mask | max | mem | memory | min | n | new | newline | next | null | num | pad | per | prefix
      | prev | prompt | query | register | sep | separator | sos | source | special | start | stop | subword
      | suffix | target | text | unk | video | vision | word )-token""",
    re.VERBOSE,
)

_OPTION = re.compile(r"--?[A-Za-z][\w.-]*")
_NOT_A_VALUE = re.compile(r"--.*|-[A-Za-z]", re.DOTALL)
_ASSIGNED_NAME = re.compile(r"[\w.\-+~/@\[\]]+")
_NAME_IN_TEXT = re.compile(r"""(?<![\w.-])(?<!://)([A-Za-z_][\w.-]*)["'\]]*\s*[=:]\s*""")
# What opens a bracket may hold anything: it is taken to the end of the text.
_VALUE_IN_TEXT = re.compile(
    rf"""(?: (?:basic|bearer|token)\s+ )?
    (?: {re.escape(REDACTED)} | [\[{{(].* | "(?:[^"\\]|\\.)*"? | '(?:[^'\\]|\\.)*'? | [^\s,;&)}}\]"']* )""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_URL_PASSWORD = re.compile(r"""(://[^\s/:@'"]*):[^\s/?#'"]*@""")
_URL_SIGNATURE = re.compile(r"""([?&](?:x-(?:amz|goog)-signature|sig)=)[^&\s#'"]+""", re.IGNORECASE)


def names_a_secret(name: str) -> bool:
    """Return whether a name, judged by its parts, is that of a secret.

    >>> [names_a_secret(name) for name in ("wandb.api_key", "hf-token", "max_tokens", "author")]
    [True, True, False, False]
    """
    if name == "PWD":  # the shell's working directory
        return False
    parts = "-".join(_PLURAL.sub("", part.lower()) for part in _NAME_PARTS.findall(name))
    return _SECRET_NAME.fullmatch(parts) is not None and _PLAIN_NAME.fullmatch(parts) is None


def redacted_words(words: Sequence[str]) -> Iterator[str]:
    """Yield the words of a command line, each secret's value as ``[redacted]``.

    >>> list(redacted_words(["train.py", "--api-key", "xyz", "--lr=1", "pg://me:pw@host/x"]))
    ['train.py', '--api-key', '[redacted]', '--lr=1', 'pg://me:[redacted]@host/x']
    """
    value_is_next = False
    for word in words:
        if value_is_next and not _NOT_A_VALUE.fullmatch(word):
            value_is_next = False
            yield REDACTED
            continue
        value_is_next = _OPTION.fullmatch(word) is not None and not word.startswith("--no-") and names_a_secret(word)
        yield _redacted_word(word)


def _redacted_word(word: str) -> str:
    start = 0
    while (end := word.find("=", start)) >= 0 and _ASSIGNED_NAME.fullmatch(word, start, end):
        if names_a_secret(word[start:end]):
            return f"{word[: end + 1]}{REDACTED}"
        start = end + 1
    return _redacted_text(word)


def _redacted_text(text: str) -> str:
    """Return `text`, such as JSON, code, a header or a URL, with the secrets named inside it replaced."""
    text = _redacted_urls(text)
    pieces = []
    kept = 0
    for found in _NAME_IN_TEXT.finditer(text):
        if found.start() < kept or not names_a_secret(found[1]):
            continue
        if (value := _VALUE_IN_TEXT.match(text, found.end())) and value[0]:
            pieces += [text[kept : found.end()], REDACTED]
            kept = value.end()
    return "".join([*pieces, text[kept:]])


def _redacted_urls(text: str) -> str:
    return _URL_SIGNATURE.sub(rf"\1{REDACTED}", _URL_PASSWORD.sub(rf"\1:{REDACTED}@", text))
