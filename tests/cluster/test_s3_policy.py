"""The bucket policy: exactly the rights that the code's requests need, on its three places and no others."""

import ast
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What S3 asks for each request, by Amazon's list of actions.
ACTIONS = {
    "get_object": "s3:GetObject",
    "head_object": "s3:GetObject",
    "list_objects_v2": "s3:ListBucket",
    "put_object": "s3:PutObject",
    "create_multipart_upload": "s3:PutObject",
    "upload_part": "s3:PutObject",
    "complete_multipart_upload": "s3:PutObject",
    "abort_multipart_upload": "s3:AbortMultipartUpload",
    "delete_object": "s3:DeleteObject",
}
SOURCES = ("pipeline/io/s3.py", "pipeline/io/s3_store.py")


def asked_for() -> set[str]:
    """The method of every request that the sources make, by `ask` or by `_ask`, which is given `s3.ask`."""
    calls = [
        node
        for source in SOURCES
        for node in ast.walk(ast.parse((ROOT / source).read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("ask", "_ask")
    ]
    return {
        a.value
        for call in calls
        for a in call.args
        if isinstance(a, ast.Constant) and isinstance(a.value, str)
    }


def statements() -> dict[str, dict]:
    policy = json.loads((ROOT / "cluster" / "s3-policy.json").read_text())
    assert policy["Version"] == "2012-10-17"
    assert all(statement["Effect"] == "Allow" for statement in policy["Statement"])
    return {statement["Sid"]: statement for statement in policy["Statement"]}


def test_the_policy_allows_what_the_code_asks_for_and_nothing_else():
    assert asked_for() == set(ACTIONS)
    allowed = {action for statement in statements().values() for action in statement["Action"]}
    assert allowed == set(ACTIONS.values())


def test_input_and_weights_can_not_be_written_and_no_resource_is_a_whole_account():
    writing = set(ACTIONS.values()) - {"s3:GetObject", "s3:ListBucket"}
    for statement in statements().values():
        for resource in statement["Resource"]:
            place = resource.removeprefix("arn:aws:s3:::")
            assert place != resource
            assert "*" not in place.removesuffix("/*")
            if writing & set(statement["Action"]):
                assert place == "photographs/out/*"


def test_listing_is_held_to_the_places_that_may_be_read():
    found = statements()
    prefixes = set(found["ListInputOutputAndWeights"]["Condition"]["StringLike"]["s3:prefix"])
    readable = {
        resource.removeprefix("arn:aws:s3:::").partition("/")[2]
        for name in ("ReadInputAndWeights", "ReadAndWriteOutput")
        for resource in found[name]["Resource"]
    }
    assert prefixes == readable


def test_uploads_that_nobody_ends_are_ended_below_the_output():
    (rule,) = json.loads((ROOT / "cluster" / "s3-lifecycle.json").read_text())["Rules"]
    assert rule["Status"] == "Enabled"
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    (output,) = statements()["ReadAndWriteOutput"]["Resource"]
    assert output.endswith(f"/{rule['Filter']['Prefix']}*")
