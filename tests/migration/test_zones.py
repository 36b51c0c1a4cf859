"""Provision.md 14.3: regions of zones."""

import pytest

from csi_provisioner.migration import TranslationError, zones

GCE: list[tuple[list[str], str | None]] = [
    (["us-central1-b"], "us-central1"),
    (["us-central1-b", "us-central1-f"], "us-central1"),
    (["us-central1-b", "us-east1-b"], None),
    (["us-central1"], None),
    (["a-b-c-d"], None),
    ([], None),
]
AWS: list[tuple[list[str], str | None]] = [
    (["us-east-1a"], "us-east-1"),
    (["us-gov-east-1a"], "us-gov-east-1"),
    (["us-east-1a", "us-east-1f"], "us-east-1"),
    (["us-west-2-lax-1a"], "us-west-2"),
    (["us-east-1-wl1-bos-wlz-1"], "us-east-1"),
    (["us-east-1"], None),
    (["us-east-1ab"], None),
    (["us-east-1a", "us-west-1a"], None),
    (["a-b-c-d-e-f"], None),
    (["us"], None),
    ([], None),
]


@pytest.mark.parametrize(
    ("given", "expected"), GCE, ids=[f"provision-14.3-gce-{'+'.join(g) or 'none'}" for g, _ in GCE]
)
def test_gce_region(given: list[str], expected: str | None) -> None:
    check(zones.gce_region, given, expected)


@pytest.mark.parametrize(
    ("given", "expected"), AWS, ids=[f"provision-14.3-aws-{'+'.join(g) or 'none'}" for g, _ in AWS]
)
def test_aws_region(given: list[str], expected: str | None) -> None:
    check(zones.aws_region, given, expected)


def check(region_of: zones.RegionOf, given: list[str], expected: str | None) -> None:
    if expected is None:
        with pytest.raises(TranslationError):
            region_of(given)
    else:
        assert region_of(given) == expected
