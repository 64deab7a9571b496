"""AWS CLI, boto3 and grpcio over TLS against a real hsmac: whom they believe, and what they show.

    python tls.py PATH-OF-HSMAC      (requirements.txt beside this file; the command `openssl`)

On the AWS listener a signed request is judged by its signature, one that is not signed by the client
certificate of its connection.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

import boto3
import botocore
import botocore.exceptions
import grpc
from botocore.config import Config
from google.rpc import error_details_pb2

import python_grpc
from aws_cli import FAULT, OF, Cli, made
from boto3_kms import MESSAGE, client, refused
from service import ACCESS_KEY, ACCOUNT, KEYS, LIMIT, REGION, SECRET, clean_environment, free_address, run

KEY = KEYS[256]
GENERATE = {"KeyId": KEY.alias, "Message": MESSAGE, "MacAlgorithm": KEY.algorithm}
BILLING = f"arn:aws:iam::{ACCOUNT}:user/billing"
SECURE = f"arn:aws:iam::{ACCOUNT}:user/secure"
# Another of AWS's examples.
SECURE_KEY = "AKIAI44QH8DHBEXAMPLE"
SECURE_SECRET = "je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY"


def suite(checks, service):
    place = Place(service)
    # The same principals, by signatures alone and without TLS.
    service.serve()
    checks.part(secure_transport, checks, place, "false")
    grpc_address = place.serve_over_tls()
    checks.part(secure_transport, checks, place, "true")
    checks.part(boto3_and_its_authorities, checks, place)
    checks.part(boto3_and_its_certificate, checks, place)
    checks.part(aws_cli, checks, place)
    checks.part(grpcio, checks, place, grpc_address)


class Place:
    """Authorities and certificates, made by `openssl`, and the principals whom they stand for."""

    def __init__(self, service):
        self.service, self.folder = service, service.config.parent
        for authority in ("servers", "clients", "strangers"):
            self.authority(authority)
        self.sign("server", "servers", "serverAuth", "IP:127.0.0.1,DNS:localhost")
        self.sign("billing", "clients", "clientAuth", "URI:spiffe://dc1/billing")
        self.sign("nobody", "clients", "clientAuth", "DNS:nobody.example")
        self.sign("stranger", "strangers", "clientAuth", "URI:spiffe://dc1/billing")
        self.write("secure.secret", SECURE_SECRET)
        may = {"Effect": "Allow", "Action": "kms:*", "Resource": "*"}
        condition = {"Bool": {"aws:SecureTransport": "true"}}
        self.write("billing.json", json.dumps({"Statement": may}))
        self.write("secure.json", json.dumps({"Statement": may | {"Condition": condition}}))
        config = service.config.read_text()
        # Nobody is let in who proves nothing.
        self.without_proof = re.sub(r"(?m)^anonymous = .*\n", "", config)
        service.config.write_text(config + self.principals)
        self.without_proof += self.principals

    principals = (
        f'\n[[principal]]\narn = "{BILLING}"\ncertificate_uri = "spiffe://dc1/billing"\npolicy_file = "billing.json"\n'
        f'\n[[principal]]\narn = "{SECURE}"\naccess_key_id = "{SECURE_KEY}"\n'
        f'secret_access_key_file = "secure.secret"\npolicy_file = "secure.json"\n'
    )

    def serve_over_tls(self):
        """Gives the address of gRPC."""
        self.service.config.write_text(self.without_proof)
        settings = [
            f"{listener}.tls.{name}={file}"
            for listener in ("grpc", "aws")
            for name, file in (("certificate", "server.pem"), ("key", "server.key"), ("client_ca", "clients.pem"))
        ]
        address = free_address()
        self.service.serve(*settings, f"grpc.listen={address}")
        return address

    def path(self, name):
        return str(self.folder / name)

    def pair(self, name):
        return self.path(f"{name}.pem"), self.path(f"{name}.key")

    def read(self, name):
        return (self.folder / name).read_bytes()

    def write(self, name, text):
        path = self.folder / name
        path.touch(0o600)
        path.write_text(text)

    def authority(self, name):
        self.request(name)
        self.extensions("basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n")
        self.openssl(f"x509 -req -in {name}.csr -signkey {name}.key -days 2 -extfile extensions -out {name}.pem")

    def sign(self, name, authority, usage, names):
        self.request(name)
        self.extensions(f"extendedKeyUsage={usage}\nsubjectAltName={names}\n")
        by = f"-CA {authority}.pem -CAkey {authority}.key -CAcreateserial"
        self.openssl(f"x509 -req -in {name}.csr {by} -days 2 -extfile extensions -out {name}.pem")

    def request(self, name):
        key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
        self.openssl(f"req -new {key} -keyout {name}.key -subj /CN={name} -out {name}.csr")
        os.chmod(self.path(f"{name}.key"), 0o400)

    def extensions(self, text):
        (self.folder / "extensions").write_text(text)

    def openssl(self, words):
        subprocess.run(["openssl", *words.split()], cwd=self.folder, check=True, capture_output=True)

    @property
    def https(self):
        return f"https://{self.service.address}"

    def kms(self, key=ACCESS_KEY, secret=SECRET, verify="servers.pem", **config):
        """boto3's client over TLS."""
        config = {"retries": {"total_max_attempts": 1}, "read_timeout": LIMIT, **config}
        verify = self.path(verify) if isinstance(verify, str) else verify
        session = boto3.session.Session(key, secret, region_name=REGION)
        return session.client("kms", endpoint_url=self.https, verify=verify, config=Config(**config))

    def unsigned(self, shown=None):
        """The same without an access key, with a certificate."""
        certificate = {"client_cert": self.pair(shown)} if shown else {}
        return self.kms(None, None, signature_version=botocore.UNSIGNED, **certificate)


def secure_transport(checks, place, secure):
    """A policy that wants aws:SecureTransport lets a signature in over TLS alone."""
    if secure == "true":
        kms, others = place.kms(SECURE_KEY, SECURE_SECRET), place.kms()
        checks.equal("over TLS SecureTransport is true", kms.generate_mac(**GENERATE)["Mac"], KEY.mac(MESSAGE))
    else:
        kms = client(place.service, key=SECURE_KEY, secret=SECURE_SECRET)
        others = client(place.service)
        say = re.compile(f"User: {SECURE} is not authorized to perform: kms:GenerateMac on resource: ")
        refused(checks, "without TLS it is false", lambda: kms.generate_mac(**GENERATE), "AccessDeniedException", say)
    checks.equal("to others it is nothing", others.generate_mac(**GENERATE)["Mac"], KEY.mac(MESSAGE))


def boto3_and_its_authorities(checks, place):
    mac = place.kms().generate_mac(**GENERATE)["Mac"]
    checks.equal("verify=FILE: a MAC", mac, KEY.mac(MESSAGE))
    checks.equal("and it is valid", place.kms().verify_mac(**GENERATE, Mac=mac)["MacValid"], True)
    for what, verify in [("another authority", "strangers.pem"), ("the usual authorities", True)]:
        try:
            place.kms(verify=verify).generate_mac(**GENERATE)
            fault = None
        except botocore.exceptions.SSLError as error:
            fault = error
        checks.holds(f"{what}: boto3 does not believe the server", "CERTIFICATE_VERIFY_FAILED" in str(fault), fault)
    checks.equal("verify=False: a MAC", place.kms(verify=False).generate_mac(**GENERATE)["Mac"], KEY.mac(MESSAGE))
    plain = client(place.service)
    try:
        plain.generate_mac(**GENERATE)
        fault = None
    except botocore.exceptions.HTTPClientError as error:
        fault = error
    checks.holds("http:// at the port of TLS is a fault", fault, fault)


def boto3_and_its_certificate(checks, place):
    """What proves who calls: a signature if there is one, else the certificate."""
    billing = place.unsigned("billing")
    checks.equal("a certificate and no signature", billing.generate_mac(**GENERATE)["Mac"], KEY.mac(MESSAGE))
    for what, kms, name, say in [
        (
            "neither",
            place.unsigned(),
            "MissingAuthenticationTokenException",
            re.compile(".*missing authentication token", re.I),
        ),
        (
            "a certificate of nobody",
            place.unsigned("nobody"),
            "UnrecognizedClientException",
            "The caller's certificate stands for no principal that the server knows.",
        ),
        (
            "a wrong signature, whatever the certificate",
            place.kms(secret="x" * 40, client_cert=place.pair("billing")),
            "InvalidSignatureException",
            re.compile("The request signature we calculated does not match"),
        ),
    ]:
        refused(checks, what, lambda: kms.generate_mac(**GENERATE), name, say)
    nobody = place.kms(client_cert=place.pair("nobody"))
    checks.equal("a signature counts, not the certificate", nobody.generate_mac(**GENERATE)["Mac"], KEY.mac(MESSAGE))

    # Whose rights those are shows where the policies differ: a key that is for one of the two.
    statement = {"Effect": "Allow", "Principal": {"AWS": BILLING}, "Action": "kms:*", "Resource": "*"}
    of = {"KeySpec": "HMAC_256", "KeyUsage": "GENERATE_VERIFY_MAC", "BypassPolicyLockoutSafetyCheck": True}
    key = billing.create_key(**of, Policy=json.dumps({"Statement": [statement]}))["KeyMetadata"]["KeyId"]
    checks.equal("the key of one", billing.describe_key(KeyId=key)["KeyMetadata"]["KeyId"], key)
    signed = place.kms(client_cert=place.pair("billing"))
    say = re.compile(f"User: arn:aws:iam::{ACCOUNT}:user/dev is not authorized to perform: kms:DescribeKey")
    refused(checks, "is not that of who signs", lambda: signed.describe_key(KeyId=key), "AccessDeniedException", say)

    for what, kms in [
        ("not signed", place.unsigned("stranger")),
        ("signed", place.kms(client_cert=place.pair("stranger"))),
    ]:
        try:
            kms.generate_mac(**GENERATE)
            fault = None
        except (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError) as error:
            fault = error
        checks.holds(f"a certificate of strangers, {what}: no connection", fault, fault)


def aws_cli(checks, place):
    cli = Cli(checks, place.service)
    over = ["--endpoint-url", place.https]
    believe = [*over, "--ca-bundle", place.path("servers.pem")]
    mac = made(KEY, MESSAGE)
    cli.all(
        [
            ("--ca-bundle", ["generate-mac", *OF, *believe], mac),
            ("AWS_CA_BUNDLE", ["generate-mac", *OF, *over], mac, {"AWS_CA_BUNDLE": place.path("servers.pem")}),
            (
                "another authority",
                ["generate-mac", *OF, *over, "--ca-bundle", place.path("strangers.pem")],
                re.compile(r"\s*SSL validation failed for https://.*CERTIFICATE_VERIFY_FAILED"),
            ),
            (
                "the usual authorities",
                ["generate-mac", *OF, *over],
                re.compile(r"\s*SSL validation failed for https://.*CERTIFICATE_VERIFY_FAILED"),
            ),
            (
                "--no-sign-request",
                ["generate-mac", *OF, *believe, "--no-sign-request"],
                re.compile(FAULT.format("MissingAuthenticationTokenException", "GenerateMac", "")),
            ),
        ]
    )
    done = cli.kms("generate-mac", *OF, *over, "--no-verify-ssl")
    checks.equal("--no-verify-ssl", (done.code, json.loads(done.out or "null")), (0, mac))
    checks.holds("which is warned of", "InsecureRequestWarning" in done.err, done)


def grpcio(checks, place, address):
    pb = python_grpc.stubs(place.folder)
    health = python_grpc.health_pb2

    def channel(shown, authority="servers"):
        certificate = (place.read(f"{shown}.key"), place.read(f"{shown}.pem")) if shown else (None, None)
        credentials = grpc.ssl_channel_credentials(place.read(f"{authority}.pem"), *certificate)
        return grpc.secure_channel(address, credentials)

    def ask(over):
        request = pb.mac_pb2.GenerateMacRequest(key_id=KEY.alias, message=MESSAGE, mac_algorithm=KEY.algorithm)
        return pb.mac_pb2_grpc.MacServiceStub(over).GenerateMac(request, timeout=LIMIT)

    with channel("billing") as billing:
        checks.equal("a MAC over mTLS", ask(billing).mac, KEY.mac(MESSAGE))
    for what, shown, reason in [
        ("no certificate", None, "MISSING_AUTHENTICATION_TOKEN"),
        ("a certificate of nobody", "nobody", "UNRECOGNIZED_CLIENT"),
    ]:
        with channel(shown) as over:
            answer = python_grpc.health_pb2_grpc.HealthStub(over).Check(health.HealthCheckRequest(), timeout=LIMIT)
            checks.equal(f"{what}: health answers", answer.status, health.HealthCheckResponse.SERVING)
            fault = failed(ask, over)
            info = python_grpc.details(fault, error_details_pb2.ErrorInfo)
            checks.equal(what, (fault.code(), info.reason), (grpc.StatusCode.UNAUTHENTICATED, reason))
    for what, shown, authority in [
        ("a certificate of strangers", "stranger", "servers"),
        ("another authority", "billing", "strangers"),
    ]:
        with channel(shown, authority) as over:
            checks.equal(f"{what}: no connection", failed(ask, over).code(), grpc.StatusCode.UNAVAILABLE)
    with grpc.insecure_channel(address) as plain:
        checks.equal("without TLS: no connection", failed(ask, plain).code(), grpc.StatusCode.UNAVAILABLE)


def failed(ask, over):
    try:
        ask(over)
    except grpc.RpcError as fault:
        return fault
    raise AssertionError("it was not refused")


if __name__ == "__main__":
    for name in set(os.environ) - set(clean_environment()):
        del os.environ[name]
    os.environ |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    run("TLS", suite, pathlib.Path(sys.argv[1]))
