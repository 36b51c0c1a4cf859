"""YAML read as text: every scalar as it stands, whatever YAML 1.1 takes it for (dates, numbers, `no`).

A module of its own, because a process in a pod reads no kubeconfig and need not load it.
"""

from typing import ClassVar

import yaml

# Far more than a kubeconfig has, and far less than what exhausts the stack of libyaml's loader
DEEPEST = 100
# Each may stand for text that has others: with some more a file of a few lines would never be read to its end
MOST_ALIASES = 20
NULL, TIMESTAMP = "tag:yaml.org,2002:null", "tag:yaml.org,2002:timestamp"
# Entries that are not text: switches, and what is handed on to a plugin as it is
TYPED = ("insecure-skip-tls-verify", "provideClusterInfo", "extension")


def document(text: bytes) -> object:
    """The first document. A ValueError says what is wrong, without quoting the text: it may be a secret."""
    try:
        return _parsed(text)
    except yaml.YAMLError as error:
        if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
            raise ValueError(f"{error.problem} in line {error.problem_mark.line + 1}") from error
        raise ValueError(str(error)) from error


class TextLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """All but the few entries that are not text. An entry without a value counts as left out."""

    yaml_constructors: ClassVar = {NULL: lambda _loader, _node: None}
    yaml_implicit_resolvers: ClassVar = {
        first: [resolver for resolver in resolvers if resolver[0] != TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, object]:
        self.flatten_mapping(node)
        return {
            str(key.value): _typed(key.value, value) if key.value in TYPED else self.construct_object(value)
            for key, value in node.value
            if value.tag != NULL
        }


def _typed(entry: str, node: yaml.Node) -> object:
    try:
        return yaml.constructor.SafeConstructor().construct_object(node, deep=True)
    except Exception as error:  # of many kinds: a value that its tag does not fit
        raise ValueError(f"the value of {entry} is not what its tag says") from error


def _parsed(text: bytes) -> object:
    # Counted before anything is built: the loader goes as deep on the stack as the document does.
    depth = aliases = 0
    for event in yaml.parse(text, TextLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        if depth > DEEPEST or aliases > MOST_ALIASES:
            raise ValueError(f"it is nested more than {DEEPEST} deep, or has more than {MOST_ALIASES} aliases")
    return next(yaml.load_all(text, TextLoader), None)
