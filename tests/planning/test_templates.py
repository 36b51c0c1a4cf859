"""provision.md 8.9: which secrets a class names, and how their names are filled in."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_provisioner.model.kubernetes import SecretReference
from csi_provisioner.model.outcome import State
from csi_provisioner.planning import templates
from csi_provisioner.planning.refusal import Refusal
from csi_provisioner.planning.templates import Role, Subject, Template

P = "csi.storage.k8s.io/"
PUBLISH, EXPAND = templates.CONTROLLER_PUBLISH, templates.CONTROLLER_EXPAND
SUBJECT = Subject("vol-1", "shop", "data", {"who": "me", "a.test/it's": "quoted"})


def pair(role: Role, name: str = "n", namespace: str = "ns") -> dict[str, str]:
    return {f"{P}{role.key}-name": name, f"{P}{role.key}-namespace": namespace}


@pytest.mark.parametrize("role", templates.ROLES, ids=lambda role: f"8.9 {role.purpose}, p19-request-4")
def test_every_role_has_its_prefixed_pair(role: Role) -> None:
    assert templates.select(pair(role)) == {role: Template(role.purpose, "n", "ns")}


@pytest.mark.parametrize(
    ("role", "stem"),
    [
        (templates.PROVISIONER, "csiProvisionerSecret"),
        (templates.CONTROLLER_PUBLISH, "csiControllerPublishSecret"),
        (templates.NODE_STAGE, "csiNodeStageSecret"),
        (templates.NODE_PUBLISH, "csiNodePublishSecret"),
    ],
    ids=lambda value: f"8.9 deprecated {value}" if isinstance(value, str) else "",
)
def test_deprecated_pairs(role: Role, stem: str) -> None:
    assert set(templates.select({f"{stem}Name": "n", f"{stem}Namespace": "ns"})) == {role}


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        pytest.param(
            pair(PUBLISH) | {"csiControllerPublishSecretName": "n"},
            "twice, as csiControllerPublishSecretName and",
            id="1 two names",
        ),
        pytest.param(pair(PUBLISH) | {"csiControllerPublishSecretNamespace": "n"}, "twice", id="1 two namespaces"),
        pytest.param({f"{P}{PUBLISH.key}-name": "n"}, f"-name without {P}{PUBLISH.key}-namespace", id="1 name alone"),
        pytest.param(
            {f"{P}{PUBLISH.key}-namespace": "n"}, f"-namespace without {P}{PUBLISH.key}-name", id="1 namespace alone"
        ),
        pytest.param(pair(PUBLISH, name=""), f"leaves {P}{PUBLISH.key}-name empty", id="1 empty name"),
        pytest.param(pair(PUBLISH, namespace=""), f"leaves {P}{PUBLISH.key}-namespace empty", id="1 empty namespace"),
        pytest.param(pair(templates.DEFAULT, name=""), "default secret", id="2 default under the same rules"),
        pytest.param({f"{P}secret-name": "n"}, "default secret", id="2 half a default, p19-request-5"),
    ],
)
def test_a_pair_with_one_half_missing_is_refused(parameters: dict[str, str], says: str) -> None:
    """provision.md 8.9."""
    chosen = templates.select(parameters)[PUBLISH]
    assert isinstance(chosen, Refusal)
    assert chosen.state is State.NO_CHANGE
    assert says in chosen.message


def test_a_deprecated_name_goes_with_a_prefixed_namespace() -> None:
    """provision.md 8.9.1."""
    mixed = {"csiNodeStageSecretName": "n", f"{P}node-stage-secret-namespace": "ns"}
    assert templates.select(mixed) == {templates.NODE_STAGE: Template("node-stage", "n", "ns")}


def test_the_default_stands_in_for_roles_without_keys() -> None:
    """provision.md 8.9.2."""
    chosen = templates.select(pair(templates.DEFAULT, "d", "dns") | pair(EXPAND, "e", "ens"))
    assert set(chosen) == set(templates.ROLES)
    assert chosen[EXPAND] == Template("controller-expand", "e", "ens")
    assert chosen[PUBLISH] == Template("default", "d", "dns")


def test_a_wrong_default_does_not_touch_roles_with_keys() -> None:
    """provision.md 8.9.2."""
    chosen = templates.select({f"{P}secret-name": "n"} | pair(EXPAND))
    assert chosen[EXPAND] == Template("controller-expand", "n", "ns")


def test_no_keys_no_secrets() -> None:
    assert templates.select({"tier": "gold"}) == {}


# ---- tokens


@pytest.mark.parametrize(
    ("name", "filled"),
    [
        pytest.param("static", "static", id="no token"),
        pytest.param("${pv.name}", "vol-1", id="pv.name is the generated name"),
        pytest.param("${pvc.namespace}-${pvc.name}", "shop-data", id="claim"),
        pytest.param("x${pvc.annotations['who']}y", "xmey", id="annotation, p19-request-6"),
        pytest.param("${pvc.annotations['a.test/it's']}", "quoted", id="any annotation key"),
        pytest.param("a${}b", "ab", id="${} is dropped"),
        pytest.param("a${b", "ab", id="an unclosed one loses two characters"),
        pytest.param("${}a${}", "a", id="several dropped"),
    ],
)
def test_name_tokens(name: str, filled: str) -> None:
    assert templates.resolve(Template("p", name, "ns"), SUBJECT) == SecretReference(name=filled, namespace="ns")


@pytest.mark.parametrize(
    ("namespace", "filled"),
    [
        pytest.param("${pvc.namespace}", "shop", id="pvc.namespace"),
        pytest.param("x-${pv.name}", "x-vol-1", id="pv.name"),
    ],
)
def test_namespace_tokens(namespace: str, filled: str) -> None:
    assert templates.resolve(Template("p", "n", namespace), SUBJECT).namespace == filled


@pytest.mark.parametrize(
    ("name", "namespace", "unknown"),
    [
        pytest.param("n", "${pvc.name}", "pvc.name", id="8.9 pvc.name not in a namespace"),
        pytest.param(
            "n", "${pvc.annotations['who']}", "pvc.annotations['who']", id="8.9 annotation not in a namespace"
        ),
        pytest.param("${b}${a}${b}", "ns", "a, b;", id="8.9 all unknown ones, sorted, once"),
        pytest.param("${pvc.annotations['you']}", "ns", "pvc.annotations['you']", id="8.9 annotation not there"),
        pytest.param("$pv.name", "ns", "pv;", id="8.9 unbraced word"),
        pytest.param("$a_1b-c", "ns", "a_1b;", id="8.9 word ends at what is no letter, digit, underscore"),
        pytest.param("$1abc", "ns", "1;", id="8.9 a digit is a token of its own"),
        pytest.param("${*}", "ns", "*;", id="8.9 braced special"),
        *(pytest.param(f"a${sign}", "ns", f"{sign};", id=f"8.9 special {sign}") for sign in "*#$@!?-0"),
    ],
)
def test_unknown_tokens(name: str, namespace: str, unknown: str) -> None:
    with pytest.raises(Refusal, match=r"nothing known as " + re.escape(unknown)) as refused:
        templates.resolve(Template("p", name, namespace), SUBJECT)
    assert refused.value.state is State.NO_CHANGE


@pytest.mark.parametrize(
    ("name", "namespace", "says"),
    [
        pytest.param("${}", "ns", "name", id="empty name"),
        pytest.param("n", "${}", "namespace", id="empty namespace"),
        pytest.param("a$", "ns", "'a$'", id="$ at the end stays"),
        pytest.param("a$.b", "ns", "'a$.b'", id="$ before no token stays"),
        pytest.param("Upper", "ns", "'Upper'", id="capitals"),
        pytest.param("a..b", "ns", "'a..b'", id="empty label"),
        pytest.param("-a", "ns", "'-a'", id="leading dash"),
        pytest.param("n", "a.b", "'a.b'", id="a namespace is one label"),
        pytest.param("n", "a" * 64, "namespace", id="namespace of 64"),
        pytest.param("a" * 254, "ns", "name", id="name of 254"),
        pytest.param("n\n", "ns", "name", id="line end"),
    ],
)
def test_names_that_no_object_can_have_are_refused(name: str, namespace: str, says: str) -> None:
    """provision.md 8.9."""
    with pytest.raises(Refusal, match=re.escape(says)) as refused:
        templates.resolve(Template("p", name, namespace), SUBJECT)
    assert refused.value.state is State.NO_CHANGE


def test_the_longest_names_are_taken() -> None:
    """provision.md 8.9."""
    longest = Template("p", "a" * 253, "b" * 63)
    assert templates.resolve(longest, SUBJECT) == SecretReference(name="a" * 253, namespace="b" * 63)


def test_an_annotation_is_not_expanded_again() -> None:
    subject = Subject("v", "ns", "n", {"k": "${pv.name}"})
    with pytest.raises(Refusal, match=re.escape("'${pv.name}', which is not a DNS subdomain")):
        templates.resolve(Template("p", "${pvc.annotations['k']}", "ns"), subject)


# ---- properties

TOKENS = st.sampled_from(
    ["$", "${", "}", "${}", "$$", "${pv.name}", "${pvc.name}", "${pvc.annotations['k']}", "pv.name", "'", "]"]
)
TEXTS = st.lists(TOKENS | st.text(max_size=4), max_size=6).map("".join)


@given(TEXTS, TEXTS, st.dictionaries(st.just("k"), st.text(max_size=8)))
def test_any_template_is_resolved_or_refused(name: str, namespace: str, annotations: dict[str, str]) -> None:
    try:
        found = templates.resolve(Template("p", name, namespace), Subject("v", "ns", "n", annotations))
    except Refusal:
        return
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", found.name)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", found.namespace)


def shell_expand(text: str, known: dict[str, str]) -> str:
    """The grammar once more, character by character, as the specification tells it."""
    out, at = "", 0
    while at < len(text):
        rest = text[at + 1 :]
        if text[at] != "$" or not rest:
            out, at = out + text[at], at + 1
        elif rest[0] == "{":
            end = rest.find("}")
            token = rest[1:end] if end > 0 else ""
            out, at = out + known.get(token, ""), at + (end + 2 if end > 0 else 2)
        elif rest[0] in "*#$@!?-0123456789":
            out, at = out + known.get(rest[0], ""), at + 2
        else:
            word = re.match(r"[A-Za-z0-9_]*", rest)[0]
            out, at = (out + known.get(word, ""), at + 1 + len(word)) if word else (out + "$", at + 1)
    return out


@given(TEXTS)
def test_expansion_follows_the_grammar(text: str) -> None:
    # everything that the grammar can take for a token has a value here, so that nothing is refused for being unknown
    try:
        found = templates.resolve(Template("p", text, "ns"), Subject("v", "ns", "n", {"k": "w"}))
    except Refusal:
        return
    assert found.name == shell_expand(text, {"pv.name": "v", "pvc.name": "n", "pvc.annotations['k']": "w"})
