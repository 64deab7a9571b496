"""Every member of every operation in KMS's model, at its limits and beyond them, against a real hsmac.

    python aws_constraints.py PATH-OF-HSMAC      (requirements.txt beside this file)

The requests, and the constraints that each breaks, are made from the service model that botocore ships,
so nothing here is written twice by hand. Each is a good request for its operation but for one member.
What breaks a constraint must be refused with all clauses of that member and no others; what does not must
be answered by something else than a constraint. Nothing may be a 500, or take long.
"""

import base64
import itertools
import json
import re
import sys

import botocore.session

from service import NOBODY, run
from wire_request import Wire

# What hsmac says is not there.
UNKNOWN = set(
    """ConnectCustomKeyStore CreateCustomKeyStore DeleteCustomKeyStore DisconnectCustomKeyStore UpdateCustomKeyStore""".split()
)
# Characters of each pattern in the model, to make texts of any length that fit it, and one that does not.
FITTING = {
    r"^[a-zA-Z0-9:/_-]+$": ("a", "a b"),
    r"[\u0009\u000A\u000D\u0020-\u00FF]+": ("a", "€"),
    r"[\u0020-\u00FF]*": ("a", "a\nb"),
    r"[\w]+": ("a", "a-b"),
    r"^[\w+=,.@:/-]+$": ("a", "a*b"),
    r"^([A-Za-z0-9\-]+)\.([A-Za-z0-9\-]+)(\.[A-Za-z0-9\-]+)+$": ("b.c.", "b.c"),
    r"^[a-zA-Z0-9-_.]+$": ("a", "a/b"),
    r"^[a-f0-9]+$": ("a", "g" * 64),
    r"^([a-z]+-){2,3}\d+$": ("us-east-", "us-1"),
    r"^[a-zA-Z0-9:/_\s.-]+$": ("a", "a,b"),
    r"^arn:aws[a-z0-9-]*:[a-z0-9-]+:[a-z0-9-]*:[0-9]{12}:.+$": ("arn:aws:s3::012345678901:", "arn:aws:s3::1:aaaaaaaa"),
}
# Members that a good request has: those that the model wants, and one of several that KMS wants.
WANTED = {
    "CreateGrant": {"GranteePrincipal": "p"},
    "GenerateRandom": {"NumberOfBytes": 8},
    "ListRetirableGrants": {"RetiringPrincipal": "p"},
}
LONG = "a" * 300
NAMES = " enum value set: ["


def suite(checks, service):
    model = botocore.session.get_session().get_service_model("kms")
    wire, asked = Wire(checks, service), 0
    for name in model.operation_names:
        operation = model.operation_model(name)
        if name in UNKNOWN:
            answer = wire.ask(wire.signed({}, target=f"TrentService.{name}"))
            checks.equal(name, (answer.status, answer.name, answer.text), (400, "UnknownOperationException", ""))
            continue
        good = good_request(operation)
        told, wrong = 0, []
        for what, request, clauses in requests(operation, good):
            answer = wire.ask(wire.signed(request, target=f"TrentService.{name}"))
            told += 1
            if fault := complaint(answer, clauses):
                wrong.append(f"{what}: {fault}")
        for what, request in of_wrong_types(operation, good):
            answer = wire.ask(wire.signed(request, target=f"TrentService.{name}"))
            told += 1
            if (answer.status, answer.name) != (400, "SerializationException"):
                wrong.append(f"{what}: {answer.status} {answer.name} {answer.text[:400]!r}")
        checks.equal(f"{name}: {told} requests", wrong, [])
        asked += told
    checks.holds(f"{asked} requests were made of the model", asked > 2000, asked)
    wire.innocent("all of them")


def complaint(answer, clauses):
    """What is wrong with an answer, if anything is."""
    got = f"{answer.status} {answer.name} {answer.text[:400]!r}"
    if answer.status not in (200, 400):
        return got
    if not answer.headers.get("x-amzn-requestid"):
        return f"no request ID: {got}"
    if answer.name in ("SerializationException", "UnknownOperationException"):
        return got
    detected = re.match(r"(\d+) validation errors? detected: ", answer.text)
    if not clauses:
        return f"refused: {got}" if detected else None
    plural = "" if len(clauses) == 1 else "s"
    start = f"{len(clauses)} validation error{plural} detected: "
    if answer.name != "ValidationException" or not answer.text.startswith(start):
        return f"{got}, not {start}{clauses}"
    rest = answer.text.removeprefix(start)
    for clause in clauses:
        # The names of an enum come in any order.
        clause, _, names = clause.partition(NAMES)
        if names:
            listed = rest.partition(clause + NAMES)[2].partition("]")[0].split(", ")
            if sorted(listed) != sorted(names.split()):
                return f"{got} lists {listed}"
        elif clause not in rest:
            return f"{got} lacks {clause!r}"
    return None


def of_wrong_types(operation, good):
    """Requests with a member that is none of its type, alone or in a list."""
    some = {"string": "x", "integer": 5, "boolean": True, "list": [], "structure": {}, "fraction": 1.5}
    alike = {"blob": ["string"], "map": ["structure"], "timestamp": ["integer", "fraction"]}
    shape = operation.input_shape
    for member, of in shape.members.items() if shape else []:
        kinds = alike.get(of.type_name, [of.type_name])
        for kind, value in some.items():
            if kind not in kinds:
                yield f"{member} is a {kind}", good | {member: value}
            if of.type_name == "list" and kind not in alike.get(of.member.type_name, [of.member.type_name]):
                yield f"{member} has a {kind}", good | {member: [value]}
        if of.type_name == "map":
            yield f"{member} has a number", good | {member: {"a": 1}}
        if of.type_name == "blob":
            yield f"{member} is no base64", good | {member: "a*=="}


def good_request(operation):
    request = dict(WANTED.get(operation.name, {}))
    shape = operation.input_shape
    for member in shape.required_members if shape else []:
        request[member] = good(member, shape.members[member])
    return request


def good(name, shape):
    """A value that breaks no constraint."""
    if name in ("KeyId", "SourceKeyId", "DestinationKeyId", "TargetKeyId"):
        # Nobody's, so that nothing is done that the next request would miss.
        return NOBODY
    if shape.type_name in ("string", "blob", "list"):
        return next(value for value, clauses in values("x", name, shape) if not clauses)
    if shape.type_name == "integer":
        return shape.metadata.get("min", 1)
    return {"boolean": False, "timestamp": 1.5, "map": {"a": "b"}, "structure": {}}[shape.type_name]


def requests(operation, good):
    """Requests for an operation, each with what it breaks: (what it is, members, clauses)."""
    shape = operation.input_shape
    yield "a good one", good, []
    for member in shape.members if shape else []:
        path = camel_case(member)
        if member in shape.required_members:
            without = {name: value for name, value in good.items() if name != member}
            yield f"no {member}", without, [f"Value null at '{path}' failed to satisfy constraint: Member must not be null"]
        for value, clauses in values(path, member, shape.members[member]):
            yield f"{member}={json.dumps(value)[:60]}", good | {member: value}, clauses
    if shape and len(shape.members) > 1:
        yield from several(shape, good)


def several(shape, good):
    """All members wrong at once: every clause is told, ten at most."""
    wrong, clauses = dict(good), []
    for member, of in shape.members.items():
        bad = next((found for found in values(camel_case(member), member, of) if found[1]), None)
        if bad:
            wrong[member] = bad[0]
            clauses += bad[1]
    if 1 < len(clauses) <= 10:
        yield "all members wrong", wrong, clauses


def values(path, name, shape):
    """Values of a member at its limits and beyond, with the clauses that each breaks."""
    made = {"string": texts, "blob": blobs, "integer": numbers, "list": lists, "structure": structures}
    yield from made.get(shape.type_name, lambda *_: [])(path, name, shape)


def texts(path, _, shape):
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if names := shape.metadata.get("enum"):
        wanted = " ".join(names)
        for name in names:
            yield name, []
        for value in ("", "NOPE", names[0].lower() + "x", LONG):
            yield value, [f"{told(value, path)}Member must satisfy{NAMES}{wanted}"]
        return
    pattern = shape.metadata.get("pattern")
    fitting, outside = FITTING[pattern] if pattern else ("a", None)
    lengths = {1, 257} | {limit + step for limit in (least, most) if limit is not None for step in (-1, 0, 1)}
    for length in sorted(length for length in lengths if length >= 0):
        yield text_of(fitting, length, path, shape)
    if outside is not None:
        yield outside, clauses_of(outside, path, shape)
        # A limit and the pattern at once.
        if most and most < 10000:
            long = ("€" * (most + 1)) if pattern != r"^[a-f0-9]+$" else "g" * (most + 1)
            yield long, clauses_of(long, path, shape)
    # The limit counts characters, not bytes.
    if not pattern and most and most <= 8192:
        yield "ä" * most, []
        yield "ä" * (most + 1), clauses_of("ä" * (most + 1), path, shape)


def text_of(fitting, length, path, shape):
    """A text of this length that fits the pattern where any can, and what it breaks."""
    filler = "1" if fitting == "us-east-" else "a"
    text = (fitting + filler * length)[:length] if len(fitting) > 1 else fitting * length
    return text, clauses_of(text, path, shape)


def clauses_of(text, path, shape):
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    pattern, clauses = shape.metadata.get("pattern"), []
    shown = "Value at '%s' failed to satisfy constraint: " % path if secret(path, shape) else told(text, path)
    if least is not None and len(text) < least:
        clauses.append(f"{shown}Member must have length greater than or equal to {least}")
    if most is not None and len(text) > most:
        clauses.append(f"{shown}Member must have length less than or equal to {most}")
    if pattern and not re.fullmatch(pattern, text, re.A):
        clauses.append(f"{shown}Member must satisfy regular expression pattern: {pattern}")
    return clauses


def blobs(path, _, shape):
    least, most = shape.metadata["min"], shape.metadata["max"]
    for length in (least - 1, least, most, most + 1):
        # A request has 256 KiB at most.
        if length > 150_000:
            continue
        value, clauses = base64.b64encode(b"x" * length).decode(), []
        if length < least:
            clauses = [f"Value at '{path}' failed to satisfy constraint: Member must have length greater than or equal to {least}"]
        if length > most:
            clauses = [f"Value at '{path}' failed to satisfy constraint: Member must have length less than or equal to {most}"]
        yield value, clauses


def numbers(path, _, shape):
    least, most = shape.metadata["min"], shape.metadata["max"]
    for value in (least, most):
        yield value, []
    for value in (least - 1, 0, -1, -(2**31)):
        if value < least:
            yield value, [f"{told(value, path)}Member must have value greater than or equal to {least}"]
    for value in (most + 1, 2**31 - 1):
        yield value, [f"{told(value, path)}Member must have value less than or equal to {most}"]


def lists(path, name, shape):
    least, most = shape.metadata.get("min", 0), shape.metadata.get("max")
    item = f"{path}.1.member"
    some = list(itertools.islice(values(item, name, shape.member), 60))
    fine = next(value for value, clauses in some if not clauses)
    yield [fine], []
    if most is not None:
        yield [fine] * most, []
        yield [fine] * (most + 1), [f"' failed to satisfy constraint: Member must have length less than or equal to {most}"]
    if least:
        yield [], [f"' failed to satisfy constraint: Member must have length greater than or equal to {least}"]
    for value, clauses in some:
        if name == "TagKeys" and len(json.dumps(value)) > 100_000:
            continue
        yield [value], clauses
    for value, clauses in values(f"{path}.2.member", name, shape.member):
        if clauses:
            yield [fine, value], clauses
            break


def structures(path, _, shape):
    fine = {member: good(member, shape.members[member]) for member in shape.required_members}
    yield fine, []
    for member, of in shape.members.items():
        at = f"{path}.{camel_case(member)}"
        if member in shape.required_members:
            without = {name: value for name, value in fine.items() if name != member}
            yield without, [f"Value null at '{at}' failed to satisfy constraint: Member must not be null"]
        for value, clauses in values(at, member, of):
            yield fine | {member: value}, clauses


def told(value, path):
    return f"Value '{value}' at '{path}' failed to satisfy constraint: "


def secret(path, shape):
    """Grant tokens are a bearer's, so no error tells them."""
    return path.startswith("grantToken")


def camel_case(name):
    return name[0].lower() + name[1:]


if __name__ == "__main__":
    run("constraints", suite, sys.argv[1])
