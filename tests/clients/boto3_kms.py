"""boto3's client of a hsmac that runs, and what the parts of its suite ask of answers and errors."""

import functools
import re

import boto3
import botocore.exceptions
from botocore.config import Config

from service import ACCESS_KEY, LIMIT, REGION, SECRET

MESSAGE = b"Hello World"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def client(service, region=REGION, key=ACCESS_KEY, secret=SECRET, token=None, **config):
    # Without retries every answer is seen; `retries` in `config` brings them back.
    config = {"retries": {"total_max_attempts": 1}, "read_timeout": LIMIT, **config}
    session = boto3.session.Session(key, secret, token, region)
    return session.client("kms", endpoint_url=service.endpoint, config=Config(**config))


def refused(checks, what, call, name, say, status=400):
    """Checks an error's class, text and status; gives its text. Without a name any class will do."""
    try:
        answer = call()
    except botocore.exceptions.ClientError as fault:
        error, metadata = fault.response["Error"], fault.response["ResponseMetadata"]
        text = error.get("Message", "")
        good = re.match(say, text) if isinstance(say, re.Pattern) else text == say
        told = (error["Code"], metadata["HTTPStatusCode"])
        if not good or told != (name or error["Code"], status):
            checks.equal(what, (*told, text), (name, status, say))
            return text
        kind = error["Code"] if error["Code"] in model() else "ClientError"
        checks.equal(f"{what}: {error['Code']}", type(fault).__name__, kind)
        if not UUID.fullmatch(metadata.get("RequestId", "")):
            checks.holds(f"{what}: has a request ID", False, metadata)
        return text
    checks.holds(f"{what}: {name}", False, answer)
    return ""


def accepted(call):
    try:
        call()
        return True
    except botocore.exceptions.ClientError:
        return False


def void(checks, what, answer):
    metadata = answer.pop("ResponseMetadata")
    length = metadata["HTTPHeaders"].get("content-length")
    checks.equal(f"{what}: an empty answer", (metadata["HTTPStatusCode"], answer, length), (200, {}, "0"))


def constraint(member, must, value="Value"):
    return f"1 validation error detected: {value} at '{member}' failed to satisfy constraint: {must}"


@functools.cache
def model():
    """The exceptions that KMS's model knows; all others are a bare ClientError."""
    kms = boto3.session.Session("x", "x", region_name=REGION).client("kms")
    return {shape.name for shape in kms.meta.service_model.error_shapes}
