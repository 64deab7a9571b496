"""JSON Web Tokens (HS256) whose key never leaves its HSM: AWS's SDK against hsmac.

    python jwt_hs256.py issue SUBJECT        prints a token that is good for an hour
    python jwt_hs256.py check TOKEN          prints its claims, or says why it is refused

HS256 is HMAC-SHA-256 over the token's first two parts, so that every JWT library can check what this
makes, if it has the key. Here nobody has it: checking asks hsmac too.

AWS_ENDPOINT_URL_KMS says where hsmac is and the usual variables who is asking; without them this is
what `hsmac dev` admits. KEY_ID says which key (default alias/demo).
"""

import base64
import json
import os
import sys
import time

import boto3
from botocore.exceptions import BotoCoreError, ClientError

KEY_ID = os.environ.get("KEY_ID", "alias/demo")
ISSUER = "https://issuer.example"
LIFETIME = 3600
# The message of a MAC has at most so many bytes; claims belong into a token, documents do not.
LONGEST = 4096
HEADER = {"alg": "HS256", "typ": "JWT"}

os.environ.setdefault("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:8460")
os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
if "AWS_PROFILE" not in os.environ:
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
kms = boto3.client("kms")


class Refused(Exception):
    """The token is not to be believed."""


def issue(subject):
    now = int(time.time())
    claims = {"iss": ISSUER, "sub": subject, "iat": now, "exp": now + LIFETIME}
    signed = f"{encode(HEADER)}.{encode(claims)}".encode()
    if len(signed) > LONGEST:
        raise ValueError(f"header and claims have {len(signed)} bytes; a message has at most {LONGEST}")
    made = kms.generate_mac(KeyId=KEY_ID, MacAlgorithm="HMAC_SHA_256", Message=signed)
    return f"{signed.decode()}.{base64url(made['Mac'])}"


def check(token):
    """The claims of a token; Refused if it is not ours, or no longer good."""
    if len(token) > LONGEST + 100:
        raise Refused("it is too long")
    try:
        header, claims, signature = token.split(".")
        read = json.loads(decode(header))
        mac = decode(signature)
    except ValueError:
        raise Refused("it is no JWT") from None
    # Never by what the token says: "none", or a key that the token names, would be anybody's.
    if not isinstance(read, dict) or read.get("alg") != "HS256" or len(mac) != 32:
        raise Refused("it is not signed with HS256")
    try:
        kms.verify_mac(
            KeyId=KEY_ID, MacAlgorithm="HMAC_SHA_256", Message=f"{header}.{claims}".encode(), Mac=mac
        )
    except kms.exceptions.KMSInvalidMacException:
        raise Refused("its signature is wrong") from None
    # Somebody who may make MACs with this key wrote the claims; what they say counts from here on.
    claims = json.loads(decode(claims))
    if claims.get("iss") != ISSUER:
        raise Refused("somebody else issued it")
    if claims.get("exp", 0) <= time.time():
        raise Refused("it has expired")
    return claims


def encode(part):
    return base64url(json.dumps(part, separators=(",", ":")).encode())


def base64url(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def decode(text):
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def main(arguments):
    match arguments:
        case ["issue", subject]:
            print(issue(subject))
        case ["check", token]:
            try:
                print(json.dumps(check(token)))
            except Refused as why:
                sys.exit(f"refused: {why}")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (BotoCoreError, ClientError) as fault:
        sys.exit(f"hsmac: {fault}")
