"""Python's grpcio, with stubs made from the published proto, against a real `hsmac dev`.

    python python_grpc.py PATH-OF-HSMAC      (requirements.txt beside this file)

Starts the server on a free port over a fresh token, checks what a user of grpcio would rely on, and
ends it. The demo key is generated in the token, so nobody here can compute its MACs: they are
checked by what must hold between calls.
"""

import concurrent.futures
import importlib
import json
import os
import pathlib
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import time

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from grpc_tools import protoc

from service import until_stopped

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
KEY_ID = "00000000-0000-4000-8000-000000000001"
KEY_ARN = f"arn:aws:kms:us-east-1:000000000000:key/{KEY_ID}"
# Ends a hang; no call takes long.
LIMIT = 30

checks = 0


def main(hsmac):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        pb = stubs(folder)
        address = f"127.0.0.1:{free_port()}"
        with open(folder / "log", "w+") as log:
            arguments = [hsmac, "dev", "--dir", folder / "dev", "--grpc", address, "--aws", "127.0.0.1:0"]
            server = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
            )
            try:
                with grpc.insecure_channel(address) as channel:
                    grpc.channel_ready_future(channel).result(timeout=LIMIT)
                    health = health_pb2_grpc.HealthStub(channel)
                    wait_until_serving(health, server)
                    macs(pb, channel)
                    wrong_things(pb, channel)
                    streams(pb, channel)
                    keys(pb, channel)
                    rotation(pb, channel)
                    deadlines(pb, channel, server)
                    health_and_reflection(health, channel)
                server.terminate()
                check("SIGTERM ends the server with 0", server.wait(LIMIT) == 0)
                address = f"127.0.0.1:{free_port()}"
                settings = ["aws.listen=127.0.0.1:0", f"grpc.listen={address}", *LIMITS]
                arguments = [hsmac, "serve", "--config", folder / "dev" / "hsmac.toml"]
                for setting in settings:
                    arguments += ["--set", setting]
                server = subprocess.Popen(
                    arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
                )
                throttled(pb, address)
                server.terminate()
                check("SIGTERM ends it with 0 again", server.wait(LIMIT) == 0)
            except BaseException:
                server.kill()
                log.seek(0)
                print(log.read(), file=sys.stderr)
                raise
    print(f"Python client: {checks} checks good (grpcio {grpc.__version__})")


def macs(pb, channel):
    service = pb.mac_pb2_grpc.MacServiceStub(channel)
    generate, verify = pb.mac_pb2.GenerateMacRequest, pb.mac_pb2.VerifyMacRequest
    of = {"key_id": "alias/demo", "message": b"Hello World", "mac_algorithm": "HMAC_SHA_256"}

    made = service.GenerateMac(generate(**of), timeout=LIMIT)
    check("a MAC has the digest's length", len(made.mac) == 32)
    check("the key's ARN comes back", made.key_id == KEY_ARN)
    check("the algorithm comes back", made.mac_algorithm == pb.mac_pb2.HMAC_SHA_256)
    check("without a checksum none was verified", not made.verified_message_crc32c)
    check("the MAC's checksum is right", made.mac_crc32c == crc32c(made.mac))
    for name in (KEY_ID, KEY_ARN, "arn:aws:kms:us-east-1:000000000000:alias/demo"):
        again = service.GenerateMac(generate(**{**of, "key_id": name}), timeout=LIMIT)
        check(f"the same MAC by the name {name}", again.mac == made.mac)
    other = service.GenerateMac(generate(**{**of, "message": b"Hello World."}), timeout=LIMIT)
    check("another message has another MAC", other.mac != made.mac)
    whole = service.GenerateMac(generate(**{**of, "message": bytes(range(256)) * 16}), timeout=LIMIT)
    check("4,096 bytes are taken", len(whole.mac) == 32)

    good = service.VerifyMac(verify(**of, mac=made.mac), timeout=LIMIT)
    check("the MAC is valid", good.mac_valid and good.key_id == KEY_ARN)
    summed = generate(**of, message_crc32c=crc32c(of["message"]))
    check("a right checksum is verified", service.GenerateMac(summed, timeout=LIMIT).verified_message_crc32c)

    # Many at a time on one connection: nobody gets another one's MAC.
    messages = [b"message %d" % number for number in range(500)]
    calls = [service.GenerateMac.future(generate(**{**of, "message": m}), timeout=LIMIT) for m in messages]
    answers = [call.result() for call in calls]
    check("500 messages have 500 MACs", len({answer.mac for answer in answers}) == 500)
    calls = [
        service.VerifyMac.future(verify(**{**of, "message": m}, mac=answer.mac), timeout=LIMIT)
        for m, answer in zip(messages, answers)
    ]
    check("each MAC is its message's", all(call.result().mac_valid for call in calls))

    random = service.GenerateRandom(pb.mac_pb2.GenerateRandomRequest(number_of_bytes=32), timeout=LIMIT)
    check("32 random bytes", len(random.plaintext) == 32 and random.plaintext != bytes(32))


def wrong_things(pb, channel):
    service = pb.mac_pb2_grpc.MacServiceStub(channel)
    generate, verify = pb.mac_pb2.GenerateMacRequest, pb.mac_pb2.VerifyMacRequest
    of = {"key_id": "alias/demo", "message": b"Hello World", "mac_algorithm": "HMAC_SHA_256"}
    mac = service.GenerateMac(generate(**of), timeout=LIMIT).mac
    wrong = bytes([mac[0] ^ 1]) + mac[1:]

    code = grpc.StatusCode
    for name, call, request, status, reason in [
        ("a wrong MAC", service.VerifyMac, verify(**of, mac=wrong), code.INVALID_ARGUMENT, "KMS_INVALID_MAC"),
        ("half a MAC", service.VerifyMac, verify(**of, mac=mac[:16]), code.INVALID_ARGUMENT, "KMS_INVALID_MAC"),
        ("no message", service.GenerateMac, generate(**{**of, "message": b""}), code.INVALID_ARGUMENT, "VALIDATION"),
        (
            "4,097 bytes",
            service.GenerateMac,
            generate(**{**of, "message": bytes(4097)}),
            code.INVALID_ARGUMENT,
            "VALIDATION",
        ),
        (
            "no algorithm",
            service.GenerateMac,
            generate(key_id="alias/demo", message=b"m"),
            code.INVALID_ARGUMENT,
            "VALIDATION",
        ),
        (
            "another spec's algorithm",
            service.GenerateMac,
            generate(**{**of, "mac_algorithm": "HMAC_SHA_512"}),
            code.INVALID_ARGUMENT,
            "INVALID_KEY_USAGE",
        ),
        (
            "an unknown alias",
            service.GenerateMac,
            generate(**{**of, "key_id": "alias/nobody"}),
            code.NOT_FOUND,
            "NOT_FOUND",
        ),
        (
            "a wrong checksum",
            service.GenerateMac,
            generate(**of, message_crc32c=1),
            code.INVALID_ARGUMENT,
            "VALIDATION",
        ),
        (
            "a dry run",
            service.GenerateMac,
            generate(**of, dry_run=True),
            code.FAILED_PRECONDITION,
            "DRY_RUN_OPERATION",
        ),
        (
            "a grant token",
            service.GenerateMac,
            generate(**of, grant_tokens=["token"]),
            code.INVALID_ARGUMENT,
            "INVALID_GRANT_TOKEN",
        ),
    ]:
        fault = refused(call, request)
        info = details(fault, error_details_pb2.ErrorInfo)
        check(
            f"{name}: {fault.code()} {info.reason}",
            (fault.code(), info.reason, info.domain) == (status, reason, "hsmac"),
        )
        check(f"{name}: has a request ID", "x-request-id" in dict(fault.initial_metadata()) | dict(fault.trailing_metadata()))
        check(f"{name}: names KMS's exception", info.metadata["exception"].endswith("Exception"))

    fault = refused(service.GenerateMac, generate(key_id="alias/demo"))
    fields = [violation.field for violation in details(fault, error_details_pb2.BadRequest).field_violations]
    check("the broken fields are named", fields == ["message", "mac_algorithm"])


def streams(pb, channel):
    """Many MACs on one stream: each under its own ID, errors among them, both ways at once."""
    service, of = pb.mac_pb2_grpc.MacServiceStub(channel), pb.mac_pb2
    usual = {"key_id": "alias/demo", "mac_algorithm": "HMAC_SHA_256"}
    count = 5_000

    def items():
        for number in range(count):
            # Every hundredth item has no message.
            message = b"" if number % 100 == 0 else b"message %d" % number
            yield of.GenerateMacsRequest(id=number, request=of.GenerateMacRequest(**usual, message=message))

    began = time.monotonic()
    stream = service.GenerateMacs(items(), timeout=10 * LIMIT)
    answers = {answer.id: answer for answer in stream}
    took = time.monotonic() - began
    check("a stream ends with OK", stream.code() == grpc.StatusCode.OK)
    check("its head has a request ID", "x-request-id" in dict(stream.initial_metadata()))
    check("each item has an answer", len(answers) == count)
    print(f"a stream of grpcio: {count / took:.0f} items/s")
    for number in (1, 99, count - 1):
        alone = of.GenerateMacRequest(**usual, message=b"message %d" % number)
        made = answers[number].response
        check(f"item {number} has its MAC", made.mac == service.GenerateMac(alone, timeout=LIMIT).mac)
        check("and its checksum", made.mac_crc32c == crc32c(made.mac))
    failed = [answers[number] for number in range(0, count, 100)]
    check("items that fail have errors", all(answer.HasField("error") for answer in failed))
    error = failed[0].error
    fault = refused(service.GenerateMac, of.GenerateMacRequest(**usual))
    info = details(fault, error_details_pb2.ErrorInfo)
    said = (error.code, error.reason, error.exception, error.message)
    check(f"an item's error is the call's: {said}", said == (fault.code().value[0], info.reason, info.metadata["exception"], fault.details()))
    fields = [(it.field, it.description) for it in error.field_violations]
    bad = details(fault, error_details_pb2.BadRequest).field_violations
    check("with the broken fields", fields == [(it.field, it.description) for it in bad])

    # Whoever waits for each answer before the next item gets it.
    asked, told = queue.Queue(), set()
    stream = service.GenerateMacs(iter(asked.get, None), timeout=LIMIT)
    for number in range(100):
        asked.put(of.GenerateMacsRequest(id=number, request=of.GenerateMacRequest(**usual, message=b"m")))
        told.add((number, next(stream).id))
    asked.put(None)
    check("question by question", all(one == other for one, other in told) and next(stream, None) is None)

    wrong = bytes(32)
    right = {number: answers[number].response.mac for number in range(1, 100)}
    verify = [
        of.VerifyMacsRequest(id=number, request=of.VerifyMacRequest(**usual, message=b"message %d" % number, mac=mac))
        for number, mac in [*right.items(), (1000, wrong)]
    ]
    verdicts = {answer.id: answer for answer in service.VerifyMacs(iter(verify), timeout=LIMIT)}
    check("right MACs are valid", all(verdicts[number].response.mac_valid for number in right))
    check("a wrong one is an error", verdicts[1000].error.reason == "KMS_INVALID_MAC")

    # Small items come in a frame each, and wait unread in eight streams of one connection.
    def of_eight(_):
        return sum(1 for answer in service.GenerateMacs(items(), timeout=10 * LIMIT) if answer.WhichOneof("outcome"))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        check("eight streams at a time", list(pool.map(of_eight, range(8))) == [count] * 8)

    # A client that leaves in the middle costs the next one nothing.
    stream = service.GenerateMacs(items(), timeout=LIMIT)
    next(stream)
    stream.cancel()
    check("the next call is answered", service.GenerateMac(of.GenerateMacRequest(**usual, message=b"m"), timeout=LIMIT).mac)
    broken = channel.stream_stream("/hsmac.v1.MacService/GenerateMacs", lambda item: item, lambda answer: answer)
    stream = broken(iter([b"\xff"]), timeout=LIMIT)
    fault = refused(lambda _, timeout: next(stream), "garbage")
    told = (fault.code(), reason_of(fault))
    check(f"garbage: {told}", told == (grpc.StatusCode.INVALID_ARGUMENT, "SERIALIZATION"))


def keys(pb, channel):
    service = pb.key_pb2_grpc.KeyServiceStub(channel)
    known = service.DescribeKey(pb.key_pb2.DescribeKeyRequest(key_id="alias/demo"), timeout=LIMIT).key_metadata
    check("the key is enabled", known.enabled and known.key_state == pb.key_pb2.ENABLED)
    check("the key's spec", known.key_spec == pb.key_pb2.HMAC_256)
    check("the key's ARN", known.arn == KEY_ARN and known.key_id == KEY_ID)
    check("its one algorithm", list(known.mac_algorithms) == [pb.mac_pb2.HMAC_SHA_256])
    check("the token says that nobody gets the key out", known.token.sensitive and known.token.non_extractable)
    listed = service.ListKeys(pb.key_pb2.ListKeysRequest(), timeout=LIMIT)
    check("the one key is listed", [key.key_id for key in listed.keys] == [KEY_ID] and not listed.truncated)


def rotation(pb, channel):
    """An HMAC key has none, and its state is looked at before that is said."""
    service, of = pb.key_pb2_grpc.KeyServiceStub(channel), pb.key_pb2
    new = of.CreateKeyRequest(key_spec="HMAC_256", key_usage="GENERATE_VERIFY_MAC")
    made = service.CreateKey(new, timeout=LIMIT).key_metadata
    told = service.GetKeyRotationStatus(of.GetKeyRotationStatusRequest(key_id=made.key_id), timeout=LIMIT)
    check("a key's rotation is not enabled", (told.key_id, told.key_rotation_enabled) == (made.arn, False))
    listed = service.ListKeyRotations(of.ListKeyRotationsRequest(key_id=made.arn), timeout=LIMIT)
    check("a key has no rotations", not listed.rotations and not listed.truncated)
    service.DisableKeyRotation(of.DisableKeyRotationRequest(key_id=made.key_id), timeout=LIMIT)
    code = grpc.StatusCode
    changes = [
        ("EnableKeyRotation", service.EnableKeyRotation, of.EnableKeyRotationRequest(key_id=made.key_id)),
        ("RotateKeyOnDemand", service.RotateKeyOnDemand, of.RotateKeyOnDemandRequest(key_id=made.key_id)),
    ]
    for name, call, request in changes:
        fault = refused(call, request, timeout=LIMIT)
        told = (fault.code(), reason_of(fault), fault.details())
        check(f"{name}: {told}", told == (code.UNIMPLEMENTED, "UNSUPPORTED_OPERATION", ""))
    often = of.EnableKeyRotationRequest(key_id=made.key_id, rotation_period_in_days=89)
    check("a period of 89 days", reason_of(refused(service.EnableKeyRotation, often, timeout=LIMIT)) == "VALIDATION")
    every = of.ListKeyRotationsRequest(key_id=made.key_id, include_key_material="ALL_KEY_MATERIAL")
    fault = refused(service.ListKeyRotations, every, timeout=LIMIT)
    check("all key material", fault.details().startswith("Input parameter includeKeyMaterial can only"))
    service.DisableKey(of.DisableKeyRequest(key_id=made.key_id), timeout=LIMIT)
    changes.append(
        ("DisableKeyRotation", service.DisableKeyRotation, of.DisableKeyRotationRequest(key_id=made.key_id))
    )
    for name, call, request in changes:
        fault = refused(call, request, timeout=LIMIT)
        told = (fault.code(), reason_of(fault), fault.details())
        check(f"{name} of a disabled key: {told}", told == (code.FAILED_PRECONDITION, "DISABLED", f"{made.arn} is disabled."))
    service.ScheduleKeyDeletion(of.ScheduleKeyDeletionRequest(key_id=made.key_id), timeout=LIMIT)
    told = service.GetKeyRotationStatus(of.GetKeyRotationStatusRequest(key_id=made.key_id), timeout=LIMIT)
    check("rotation of a key pending deletion is told", told.key_id == made.arn)
    service.ListKeyRotations(of.ListKeyRotationsRequest(key_id=made.key_id), timeout=LIMIT)


def deadlines(pb, channel, server):
    """While the token's hosts are stopped nobody can answer: the deadline must."""
    service = pb.mac_pb2_grpc.MacServiceStub(channel)
    request = pb.mac_pb2.GenerateMacRequest(key_id="alias/demo", message=b"m", mac_algorithm="HMAC_SHA_256")
    hosts = children(server.pid)
    check("the server has token hosts", hosts)
    began = time.monotonic()
    try:
        for host in hosts:
            os.kill(host, signal.SIGSTOP)
        for host in hosts:
            until_stopped(host)
        fault = refused(service.GenerateMac, request, timeout=0.3)
    finally:
        for host in hosts:
            os.kill(host, signal.SIGCONT)
    check("a deadline that passes", fault.code() == grpc.StatusCode.DEADLINE_EXCEEDED)
    check("is kept", time.monotonic() - began < LIMIT / 2)
    check("and harms nothing", len(service.GenerateMac(request, timeout=LIMIT).mac) == 32)


def health_and_reflection(health, channel):
    for service in ("", "hsmac.v1.MacService", "hsmac.v1.KeyService", "hsmac.token.dev"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=LIMIT)
        check(f"health of {service!r}", answer.status == health_pb2.HealthCheckResponse.SERVING)
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    check("reflection lists both services", {"hsmac.v1.MacService", "hsmac.v1.KeyService"} <= set(services))


def stubs(folder):
    """Generates the stubs as the README says, and imports them."""
    out = folder / "stubs"
    out.mkdir()
    protos = [str(path) for path in sorted(PROTO.glob("hsmac/v1/*.proto"))]
    # The first argument stands for the program's name.
    made = protoc.main(
        ["protoc", f"-I{PROTO}", f"-I{well_known()}", f"--python_out={out}", f"--grpc_python_out={out}", *protos]
    )
    check("stubs are made from the published proto", made == 0)
    sys.path.insert(0, str(out))

    class Modules:
        mac_pb2 = importlib.import_module("hsmac.v1.mac_pb2")
        mac_pb2_grpc = importlib.import_module("hsmac.v1.mac_pb2_grpc")
        key_pb2 = importlib.import_module("hsmac.v1.key_pb2")
        key_pb2_grpc = importlib.import_module("hsmac.v1.key_pb2_grpc")

    return Modules


def well_known():
    """`python -m grpc_tools.protoc` adds google/protobuf/*.proto itself; its main() does not."""
    import grpc_tools

    return pathlib.Path(grpc_tools.__file__).parent / "_proto"


# One call in two seconds, and none at once after a pause.
LIMITS = [f"limits.default.rates.list_aliases.{setting}" for setting in ("rate=1", "per=2s", "burst=1")]
# Only what the server says makes the second attempt come late enough.
RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 2,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.01s",
                "backoffMultiplier": 1,
                "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
            },
        }
    ]
}


def throttled(pb, address):
    request = pb.key_pb2.ListAliasesRequest()
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(timeout=LIMIT)
        service = pb.key_pb2_grpc.KeyServiceStub(channel)
        service.ListAliases(request, timeout=LIMIT)
        fault = refused(service.ListAliases, request)
        check("over the rate", fault.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and reason_of(fault) == "THROTTLING")
        delay = details(fault, error_details_pb2.RetryInfo).retry_delay
        told = delay.seconds + delay.nanos / 1e9
        check(f"{told} s is when there is room", 0 < told <= 2)
        pushback = dict(fault.trailing_metadata())["grpc-retry-pushback-ms"]
        check("grpc-retry-pushback-ms says the same", float(pushback) == told * 1000)
        time.sleep(told)
        service.ListAliases(request, timeout=LIMIT)
    with grpc.insecure_channel(address, options=[("grpc.service_config", json.dumps(RETRIES))]) as channel:
        grpc.channel_ready_future(channel).result(timeout=LIMIT)
        service = pb.key_pb2_grpc.KeyServiceStub(channel)
        began = time.monotonic()
        for _ in range(3):
            service.ListAliases(request, timeout=LIMIT)
        took = time.monotonic() - began
        check(f"gRPC's own retries wait as told: three calls took {took:.1f} s", took > 4)


def wait_until_serving(health, server):
    until = time.monotonic() + LIMIT
    request = health_pb2.HealthCheckRequest(service="")
    # A stream tells of the change; nobody has to ask again and again.
    for answer in health.Watch(request, timeout=LIMIT):
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            return
        assert server.poll() is None and time.monotonic() < until, "the server does not serve"


def refused(call, request, timeout=LIMIT):
    try:
        call(request, timeout=timeout)
    except grpc.RpcError as fault:
        return fault
    raise AssertionError(f"it was not refused: {request}")


def reason_of(fault):
    return details(fault, error_details_pb2.ErrorInfo).reason


def details(fault, kind):
    for packed in rpc_status.from_call(fault).details:
        unpacked = kind()
        if packed.Unpack(unpacked):
            return unpacked
    raise AssertionError(f"{fault.code()} {fault.details()}: there is no {kind.DESCRIPTOR.name}")


def check(what, holds):
    global checks
    if not holds:
        raise AssertionError(what)
    checks += 1


def crc32c(data):
    """Castagnoli's, bit by bit: short messages, no library."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def children(process):
    tasks = pathlib.Path(f"/proc/{process}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).resolve())
