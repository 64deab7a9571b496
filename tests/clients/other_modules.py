"""hsmac over PKCS#11 modules that are not SoftHSM2: makes, checks and creates keys over gRPC.

    python other_modules.py PATH-OF-HSMAC nss|opencryptoki      (softhsm/modules runs it)

A short form of the suite: the tests themselves want a fresh SoftHSM2 token each. It makes a token with
one key whose material is known here, so that its MACs can be made again with Python's own hmac.
"""

import ctypes
import hashlib
import hmac
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import grpc
from grpc_status import rpc_status
from google.rpc import error_details_pb2

import python_grpc
from service import LIMIT, Suite, clean_environment, free_address, until

# openCryptoki takes 4 to 8 characters.
PIN = "seatbelt"
KEY_ID = "11111111-2222-4333-8444-000000000256"
MATERIAL = hashlib.shake_256(b"a key in another module").digest(32)
CALLER = "arn:aws:iam::000000000000:user/dev"
FOLDERS = ["/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"]


# PKCS#11 in as few words as a token and a key need.

CKF_SERIAL, CKF_RW = 4, 2
CKU_SO, CKU_USER = 0, 1
FUNCTIONS = {
    "C_Initialize": 0,
    "C_Finalize": 1,
    "C_GetSlotList": 4,
    "C_GetTokenInfo": 6,
    "C_InitToken": 9,
    "C_InitPIN": 10,
    "C_SetPIN": 11,
    "C_OpenSession": 12,
    "C_CloseSession": 13,
    "C_Login": 18,
    "C_Logout": 19,
    "C_CreateObject": 20,
}
Long = ctypes.c_ulong


class Attribute(ctypes.Structure):
    _fields_ = [("kind", Long), ("value", ctypes.c_char_p), ("length", Long)]


class InitializeArguments(ctypes.Structure):
    _fields_ = [("mutexes", ctypes.c_void_p * 4), ("flags", Long), ("reserved", ctypes.c_char_p)]


class Module:
    """A loaded module; a code that is not CKR_OK is an exception."""

    def __init__(self, path, reserved=None):
        library = ctypes.CDLL(str(path))
        functions = ctypes.POINTER(ctypes.c_void_p)()
        if library.C_GetFunctionList(ctypes.byref(functions)):
            raise RuntimeError(f"{path}: C_GetFunctionList")
        # The version comes first, in the room of one pointer.
        self.functions, self.library = functions, library
        arguments = InitializeArguments(flags=2, reserved=reserved and reserved.encode())
        self.call("C_Initialize", ctypes.byref(arguments))

    def call(self, name, *arguments):
        # Without types for its arguments it takes whatever ctypes knows how to pass.
        function = ctypes.CFUNCTYPE(Long)(self.functions[1 + FUNCTIONS[name]])
        code = function(*arguments)
        if code:
            raise RuntimeError(f"{name} says {code:#x}")

    def slots(self):
        count = Long()
        self.call("C_GetSlotList", ctypes.c_ubyte(1), None, ctypes.byref(count))
        slots = (Long * count.value)()
        self.call("C_GetSlotList", ctypes.c_ubyte(1), ctypes.byref(slots), ctypes.byref(count))
        return list(slots)

    def label(self, slot):
        # Longer than any CK_TOKEN_INFO; the label is its beginning.
        info = ctypes.create_string_buffer(1024)
        self.call("C_GetTokenInfo", Long(slot), ctypes.byref(info))
        return info.raw[:32].decode().rstrip(" \0")

    def session(self, slot):
        session = Long()
        flags = Long(CKF_SERIAL | CKF_RW)
        self.call("C_OpenSession", Long(slot), flags, None, None, ctypes.byref(session))
        return session

    def with_pin(self, name, *arguments):
        """A call whose last argument is a PIN, or two."""
        passed = []
        for argument in arguments:
            if isinstance(argument, str):
                passed += [ctypes.c_char_p(argument.encode()), Long(len(argument))]
            else:
                passed.append(argument)
        self.call(name, *passed)

    def import_key(self, session, label, material):
        yes, attributes = b"\1", []
        for kind, value in [
            (0x000, Long(4)),  # CKA_CLASS: CKO_SECRET_KEY
            (0x100, Long(0x10)),  # CKA_KEY_TYPE: CKK_GENERIC_SECRET
            (0x001, yes),  # CKA_TOKEN
            (0x002, yes),  # CKA_PRIVATE
            (0x103, yes),  # CKA_SENSITIVE
            (0x162, b"\0"),  # CKA_EXTRACTABLE
            (0x108, yes),  # CKA_SIGN
            (0x003, label.encode()),  # CKA_LABEL
            (0x011, material),  # CKA_VALUE
        ]:
            value = bytes(value) if isinstance(value, Long) else value
            attributes.append(Attribute(kind, ctypes.c_char_p(value), len(value)))
        template, made = (Attribute * len(attributes))(*attributes), Long()
        self.call("C_CreateObject", session, ctypes.byref(template), Long(len(attributes)), ctypes.byref(made))


def library(*names):
    places = [pathlib.Path(folder, name) for folder in FOLDERS for name in names]
    return next((place for place in places if place.exists()), None) or sys.exit(f"none of {names} is installed")


class Nss:
    """NSS's softokn, with a database in a folder. It reads its settings from C_Initialize's pReserved."""

    label = "NSS Certificate DB"
    bits = (224, 256, 384, 512)

    def __init__(self, folder):
        self.path = library("libsoftokn3.so", "nss/libsoftokn3.so")
        database = folder / "nssdb"
        database.mkdir()
        pins = folder / "nss-pin"
        pins.write_text(PIN + "\n")
        subprocess.run(["certutil", "-N", "-d", f"sql:{database}", "-f", pins], check=True)
        self.reserved = f"configdir='sql:{database}' certPrefix='' keyPrefix='' secmod='secmod.db'"
        self.settings = f'init_reserved = "{self.reserved}"\nread_write = true\nsessions = 1\nhosts = 2\n'

    def prepare(self):
        module = Module(self.path, self.reserved)
        slot = next(slot for slot in module.slots() if module.label(slot) == self.label)
        session = module.session(slot)
        module.with_pin("C_Login", session, Long(CKU_USER), PIN)
        module.import_key(session, "known", MATERIAL)
        module.call("C_Finalize", None)


class OpenCryptoki:
    """openCryptoki's software token. Its daemon runs, and what it keeps is this run's alone."""

    label = "hsmac-test"
    # Release 3.8 has no SHA-224.
    bits = (256, 384, 512)
    # What a new token is made with, in every installation.
    FIRST_SO_PIN, SO_PIN = "87654321", "76543210"
    SLOT = 3

    def __init__(self, folder):
        self.path = library("pkcs11/PKCS11_API.so", "opencryptoki/libopencryptoki.so.0")
        self.settings = "sessions = 2\nhosts = 2\n"

    def prepare(self):
        module = Module(self.path)
        slot = Long(self.SLOT)
        first = ctypes.c_char_p(self.FIRST_SO_PIN.encode())
        label = ctypes.c_char_p(self.label.ljust(32).encode())
        module.call("C_InitToken", slot, first, Long(len(self.FIRST_SO_PIN)), label)
        session = module.session(self.SLOT)
        module.with_pin("C_Login", session, Long(CKU_SO), self.FIRST_SO_PIN)
        module.with_pin("C_SetPIN", session, self.FIRST_SO_PIN, self.SO_PIN)
        module.with_pin("C_InitPIN", session, "12345678")
        module.call("C_Logout", session)
        # A PIN that the officer gave must be changed by its user.
        module.with_pin("C_Login", session, Long(CKU_USER), "12345678")
        module.with_pin("C_SetPIN", session, "12345678", PIN)
        module.call("C_Logout", session)
        module.with_pin("C_Login", session, Long(CKU_USER), PIN)
        module.import_key(session, "known", MATERIAL)
        module.call("C_Finalize", None)


class Server:
    """`hsmac serve` over the module, on a free port."""

    def __init__(self, hsmac, folder):
        self.hsmac, self.folder = hsmac, folder
        self.log = folder / "log"

    def start(self):
        self.address = free_address()
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                [self.hsmac, "serve", "--config", "hsmac.toml", "--set", f"grpc.listen={self.address}"],
                cwd=self.folder,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        began = self.said().count("the token is up")
        until("the token is up", lambda: self.ended() or self.said().count("the token is up") > began)
        if self.process.poll() is not None:
            raise AssertionError("hsmac has ended")
        channel = grpc.insecure_channel(self.address)
        grpc.channel_ready_future(channel).result(timeout=LIMIT)
        return channel

    def ended(self):
        return self.process.poll() is not None

    def said(self):
        return self.log.read_text() if self.log.exists() else ""

    def hosts(self):
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").iterdir()
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]

    def stop(self):
        self.process.terminate()
        return self.process.wait(LIMIT)


def configure(folder, module):
    (folder / "pin").write_text(PIN + "\n")
    (folder / "pin").chmod(0o600)
    (folder / "caller.json").write_text(
        '{"Statement": {"Effect": "Allow", "Action": "kms:*", "Resource": "*"}}'
    )
    label = module.label.replace(" ", "%20")
    (folder / "hsmac.toml").write_text(
        f"""account = "000000000000"
region = "us-east-1"

[grpc]
listen = "127.0.0.1:0"
anonymous = "{CALLER}"

[[principal]]
arn = "{CALLER}"
policy_file = "caller.json"

[store.sqlite]
path = "catalogue.db"

[token.primary]
uri = "pkcs11:token={label}?module-path={module.path}"
pin_file = "pin"
{module.settings}
[[key]]
key_id = "{KEY_ID}"
object = "pkcs11:object=known"
key_spec = "HMAC_256"
aliases = ["alias/known"]
"""
    )


def check_of_the_configuration(suite, server):
    checked = subprocess.run(
        [server.hsmac, "check", "--config", "hsmac.toml"],
        cwd=server.folder,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    print(checked.stdout + checked.stderr)
    return suite.equal("hsmac check finds nothing wrong", checked.returncode, 0)


def known_key(suite, pb, channel):
    service = pb.mac_pb2_grpc.MacServiceStub(channel)
    messages = [b"message %d" % number for number in range(200)] + [b"x", bytes(range(256)) * 16]
    asked = [pb.mac_pb2.GenerateMacRequest(**of(KEY_ID, 256, message)) for message in messages]
    made = [call.result().mac for call in [service.GenerateMac.future(one, timeout=LIMIT) for one in asked]]
    right = [hmac.new(MATERIAL, message, "sha256").digest() for message in messages]
    suite.holds(f"{len(messages)} MACs are those of Python's hmac", made == right)
    verify = lambda mac: service.VerifyMac(
        pb.mac_pb2.VerifyMacRequest(**of(KEY_ID, 256, messages[0]), mac=mac), timeout=LIMIT
    )
    suite.holds("a right MAC is valid", verify(right[0]).mac_valid)
    suite.equal("a wrong MAC is none", reason(verify, right[1]), "KMS_INVALID_MAC")


def created_keys(suite, pb, channel, bits):
    """Gives each key with a MAC of it."""
    keys = pb.key_pb2_grpc.KeyServiceStub(channel)
    made = {}
    for size in bits:
        request = pb.key_pb2.CreateKeyRequest(key_usage="GENERATE_VERIFY_MAC", key_spec=f"HMAC_{size}")
        key_id = keys.CreateKey(request, timeout=LIMIT).key_metadata.key_id
        mac = mac_of(pb, channel, key_id, size)
        suite.equal(f"a new HMAC_{size} key makes MACs of its length", len(mac), size // 8)
        made[key_id] = (size, mac)
    suite.equal("each key has MACs of its own", len({mac for _, mac in made.values()}), len(made))
    return made


def refused_keys(suite, pb, channel, bits):
    """A key spec that the token has no mechanism for is refused, and leaves nothing behind."""
    keys = pb.key_pb2_grpc.KeyServiceStub(channel)
    before = len(keys.ListKeys(pb.key_pb2.ListKeysRequest(), timeout=LIMIT).keys)
    for size in {224, 256, 384, 512} - set(bits):
        request = pb.key_pb2.CreateKeyRequest(key_usage="GENERATE_VERIFY_MAC", key_spec=f"HMAC_{size}")
        said = reason(lambda request: keys.CreateKey(request, timeout=LIMIT), request)
        suite.holds(f"no HMAC_{size} key is made", said not in (None, "INTERNAL", "KMS_INTERNAL"), said)
    suite.equal("no key is left over", len(keys.ListKeys(pb.key_pb2.ListKeysRequest(), timeout=LIMIT).keys), before)


def still_the_keys(suite, when, pb, channel, made):
    again = {key_id: (size, mac_of(pb, channel, key_id, size)) for key_id, (size, _) in made.items()}
    suite.holds(f"{when} the keys make the MACs that they made before", again == made)


def killed_host(suite, pb, channel, server, made):
    for host in server.hosts():
        os.kill(host, signal.SIGKILL)
    still_the_keys(suite, "after its hosts were killed", pb, channel, made)


def mac_of(pb, channel, key_id, size):
    service = pb.mac_pb2_grpc.MacServiceStub(channel)
    ask = lambda: service.GenerateMac(pb.mac_pb2.GenerateMacRequest(**of(key_id, size, b"Hello")), timeout=LIMIT)
    # Between two hosts a token may be away for a moment.
    return until("a MAC", lambda: None if reason(lambda _: ask(), None) == "KEY_UNAVAILABLE" else ask()).mac


def of(key_id, size, message):
    return {"key_id": key_id, "message": message, "mac_algorithm": f"HMAC_SHA_{size}"}


def reason(call, argument):
    """ErrorInfo's reason; `None` if the call is good."""
    try:
        call(argument)
    except grpc.RpcError as error:
        for detail in rpc_status.from_call(error).details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                return info.reason
        return error.code().name
    return None


def main(hsmac, name):
    suite = Suite(name)
    with tempfile.TemporaryDirectory(prefix="hsmac-modules-") as folder:
        folder = pathlib.Path(folder)
        module = {"nss": Nss, "opencryptoki": OpenCryptoki}[name](folder)
        # A process that has loaded the module is no place for the rest.
        if (child := os.fork()) == 0:
            try:
                module.prepare()
                os._exit(0)
            except BaseException as error:
                print(f"{module.path}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
        if os.waitpid(child, 0)[1]:
            sys.exit(f"{name}: no token could be made")
        configure(folder, module)
        server = Server(pathlib.Path(hsmac).resolve(), folder)
        pb = python_grpc.stubs(folder)
        if not suite.part(check_of_the_configuration, suite, server):
            sys.exit(end(suite, server))
        try:
            channel = server.start()
            suite.part(known_key, suite, pb, channel)
            made = suite.part(created_keys, suite, pb, channel, module.bits) or {}
            suite.part(refused_keys, suite, pb, channel, module.bits)
            suite.part(killed_host, suite, pb, channel, server, made)
            suite.equal("SIGTERM ends the server with 0", server.stop(), 0)
            channel = server.start()
            suite.part(still_the_keys, suite, "after a restart", pb, channel, made)
            suite.part(known_key, suite, pb, channel)
            suite.equal("SIGTERM ends the server with 0", server.stop(), 0)
        finally:
            server.process.kill()
            code = end(suite, server)
    sys.exit(code)


def end(suite, server):
    suite.holds("no panic in the log", "panicked" not in server.said())
    suite.holds("no PIN in the log", PIN not in server.said())
    if suite.failures:
        print("\nhsmac's log:\n" + server.said(), file=sys.stderr)
        print("\n".join(f"FAILED  {failure}" for failure in suite.failures), file=sys.stderr)
    print(f"{suite.name}: {suite.passed} passed, {len(suite.failures)} failed")
    return 1 if suite.failures else 0


if __name__ == "__main__":
    main(*sys.argv[1:])
