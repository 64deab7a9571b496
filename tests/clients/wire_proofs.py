"""Signatures: missing, spoilt, of another place or time, over other bytes, sent again."""

import datetime
import functools
import json
import re

from service import KEYS
from wire_request import KEY, MAC, MESSAGE, TARGET

MISMATCH = re.compile("The request signature we calculated does not match the signature you provided.")


def proofs(wire):
    refused = wire.refused
    refused("no proof", wire.unsigned(), 400, "MissingAuthenticationTokenException", "Missing Authentication Token")
    presigned = wire.signed(query=True)
    refused(
        "a proof in the query", presigned, 400, "MissingAuthenticationTokenException", "Missing Authentication Token"
    )
    both = wire.signed()
    both.path = "/?X-Amz-Algorithm=AWS4-HMAC-SHA256"
    refused(
        "a proof in both places",
        both,
        400,
        "InvalidSignatureException",
        "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.",
    )
    twice = "IncompleteSignatureException"
    request = wire.signed()
    refused(
        "the Authorization header twice",
        request.add("Authorization", request.header("Authorization")),
        400,
        twice,
        re.compile(""),
    )
    request = wire.signed()
    wrong = re.sub("Signature=.*", "Signature=" + "0" * 64, request.header("Authorization"))
    refused("a right and a wrong Authorization header", request.add("Authorization", wrong), 400, twice, re.compile(""))
    refused("a wrong secret", wire.signed(secret="x" * 40), 400, "InvalidSignatureException", MISMATCH)
    unknown = "The security token included in the request is invalid."
    refused("an unknown access key", wire.signed(key="AKIDNOBODY"), 400, "UnrecognizedClientException", unknown)
    refused(
        "basic authentication",
        wire.unsigned().add("Authorization", "Basic dXNlcjpwYXNz"),
        400,
        "IncompleteSignatureException",
        re.compile(""),
    )


def spoilt_proofs(wire):
    """Each part of a proof missing or changed."""
    incomplete, invalid = "IncompleteSignatureException", "InvalidSignatureException"

    def spoilt(what, pattern, to, name, say):
        request = wire.signed()
        before = request.header("Authorization")
        after = re.sub(pattern, to, before, count=1)
        assert after != before, pattern
        wire.refused(what, request.change("Authorization", after), 400, name, re.compile(say))

    spoilt(
        "no Credential", "Credential=[^,]*, ", "", incomplete, "Authorization header requires 'Credential' parameter. "
    )
    spoilt(
        "no SignedHeaders",
        "SignedHeaders=[^,]*, ",
        "",
        incomplete,
        "Authorization header requires 'SignedHeaders' parameter. ",
    )
    spoilt("no Signature", ", Signature=.*", "", incomplete, "Authorization header requires 'Signature' parameter. ")
    spoilt(
        "nothing but the algorithm",
        " .*",
        "",
        incomplete,
        "Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. ",
    )
    spoilt(
        "another algorithm",
        "AWS4-HMAC-SHA256",
        "AWS4-ECDSA-P256-SHA256",
        incomplete,
        "Unsupported AWS 'algorithm': 'AWS4-ECDSA-P256-SHA256'",
    )
    spoilt(
        "a credential of four parts",
        "/kms/",
        "/",
        incomplete,
        "Credential must have exactly 5 slash-delimited elements",
    )
    spoilt(
        "a credential of six parts",
        "/kms/",
        "/kms/kms/",
        incomplete,
        "Credential must have exactly 5 slash-delimited elements",
    )
    spoilt(
        "another terminator",
        "aws4_request",
        "aws5_request",
        invalid,
        "Credential should be scoped with a valid terminator: 'aws4_request', not 'aws5_request'",
    )
    spoilt(
        "another day",
        r"/\d{8}/",
        "/20150830/",
        invalid,
        "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP",
    )
    spoilt(
        "another digit of the signature",
        "Signature=(.)",
        lambda found: "Signature=" + ("1" if found[1] == "0" else "0"),
        invalid,
        MISMATCH.pattern,
    )
    spoilt("a signature cut short", "Signature=..", "Signature=", invalid, MISMATCH.pattern)
    spoilt("an empty signature", "Signature=.*", "Signature=", invalid, "")
    spoilt("a header as signed that is not there", "SignedHeaders=", "SignedHeaders=a-header;", invalid, "")
    for header in ("Host", "X-Amz-Target", "X-Amz-Date"):
        spoilt(
            f"{header} is not signed",
            f"(?<=[=;]){header.lower()}[;,]" if header != "X-Amz-Target" else ";x-amz-target",
            lambda found: "," if found[0].endswith(",") else "",
            invalid,
            f"'{header}' must be a 'SignedHeader' in the AWS Authorization.",
        )

    target = wire.unsigned(target=None).sign().add("X-Amz-Target", TARGET)
    wire.refused(
        "a target that was added to a signed request",
        target,
        400,
        invalid,
        re.compile("'X-Amz-Target' must be a 'SignedHeader'"),
    )
    target = wire.signed({"KeyId": KEY.key_id}, "TrentService.DescribeKey").change(
        "X-Amz-Target", "TrentService.DisableKey"
    )
    wire.refused("another target than the signed one", target, 400, invalid, MISMATCH)
    body = wire.signed()
    body.body = body.body.replace(KEY.key_id.encode(), KEYS[512].key_id.encode())
    wire.refused("another body than the signed one", body, 400, invalid, MISMATCH)
    date = wire.signed(minutes=-1)
    date.change("X-Amz-Date", (datetime.datetime.now(datetime.timezone.utc)).strftime("%Y%m%dT%H%M%SZ"))
    wire.refused(
        "another date than the signed one",
        date,
        400,
        invalid,
        re.compile(f"{MISMATCH.pattern}|Date in Credential scope"),
    )
    query = wire.signed()
    query.path = "/?a=b"
    wire.refused("a query that was not signed", query, 400, invalid, MISMATCH)
    wire.refused(
        "no date",
        wire.signed().change("X-Amz-Date", None),
        400,
        incomplete,
        re.compile("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "),
    )
    wire.refused(
        "a date of words",
        wire.signed().change("X-Amz-Date", "Thu, 19 Nov 2026"),
        400,
        incomplete,
        re.compile("Date must be in ISO-8601 'basic format'. Got 'Thu, 19 Nov 2026'"),
    )
    for header in ("X-Amz-Date", "X-Other"):
        request = wire.signed(headers=[("X-Other", "x")])
        request.add(header, request.header(header))
        wire.refused(
            f"{header}, which is signed, twice",
            request,
            400,
            incomplete if header == "X-Amz-Date" else invalid,
            re.compile(""),
        )
    token = wire.signed().add("X-Amz-Security-Token", "token")
    wire.refused(
        "a session token that is not signed",
        token,
        400,
        invalid,
        re.compile("'X-Amz-Security-Token' must be a 'SignedHeader'"),
    )
    token = wire.signed(headers=[("X-Amz-Security-Token", "token")])
    wire.refused(
        "a session token",
        token,
        400,
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
    )
    bytes_ = wire.signed().bytes().replace(b"Credential=", b"Credential=\xff\x80")
    wire.refused("bytes that are no text in the Authorization header", bytes_, 400, incomplete, re.compile(""))


def scopes_and_dates(wire):
    invalid = "InvalidSignatureException"
    wire.refused(
        "another region",
        wire.signed(region="eu-west-3"),
        400,
        invalid,
        re.compile("Credential should be scoped to a valid region, not 'eu-west-3'. "),
    )
    wire.refused(
        "another service",
        wire.signed(service="dynamodb"),
        400,
        invalid,
        re.compile("Credential should be scoped to correct service: 'kms'. "),
    )
    stamp = r"\d{8}T\d{6}Z"
    for minutes, say in [
        (-6, rf"Signature expired: {stamp} is now earlier than {stamp} \({stamp} - 5 min\.\)"),
        (-60 * 24 * 400, "Signature expired: "),
        (6, rf"Signature not yet current: {stamp} is still later than {stamp} \({stamp} \+ 5 min\.\)"),
        (60 * 24 * 400, "Signature not yet current: "),
    ]:
        wire.refused(f"signed {minutes} minutes from now", wire.signed(minutes=minutes), 400, invalid, re.compile(say))
    for minutes in (-4, 4):
        got = wire.ask(wire.signed(minutes=minutes))
        wire.checks.equal(f"signed {minutes} minutes from now", (got.status, got.mac), (200, KEY.mac(MESSAGE)))


def payloads(wire):
    """Bodies whose hash is not in the signature."""
    digest = functools.partial(wire.signed, headers=[("X-Amz-Content-SHA256", "UNSIGNED-PAYLOAD")])
    wire.refused("an unsigned payload", digest(), 400, "InvalidSignatureException", re.compile(""))
    swapped = digest()
    swapped.body = swapped.body.replace(KEY.key_id.encode(), KEYS[512].key_id.encode())
    wire.refused("an unsigned payload, swapped", swapped, 400, "InvalidSignatureException", re.compile(""))
    for kind in ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"):
        plain = json.dumps(MAC).encode()
        chunked = b"%x;chunk-signature=%s\r\n%s\r\n0;chunk-signature=%s\r\n\r\n" % (
            len(plain),
            b"0" * 64,
            plain,
            b"0" * 64,
        )
        headers = [
            ("Content-Encoding", "aws-chunked"),
            ("X-Amz-Decoded-Content-Length", str(len(plain))),
            ("X-Amz-Content-SHA256", kind),
        ]
        got = wire.ask(wire.signed(chunked, headers=headers))
        wire.checks.holds(
            f"{kind}: refused",
            (got.status, got.name) in [(400, "InvalidSignatureException"), (400, "SerializationException")],
            vars(got),
        )
        wire.innocent(kind, got)
        got = wire.ask(wire.signed(plain, headers=headers))
        wire.checks.equal(f"{kind} with a plain body", (got.status, got.name), (400, "InvalidSignatureException"))
        wire.innocent(kind, got)
    hashed = [("X-Amz-Content-SHA256", "0" * 64)]
    wire.refused(
        "a hash of something else", wire.signed(headers=hashed), 400, "InvalidSignatureException", re.compile("")
    )


def replays(wire):
    captured = wire.signed().bytes()
    answers = [wire.ask(captured) for _ in range(3)]
    told = [(got.status, got.mac) for got in answers]
    wire.checks.equal(
        "a captured request is good again inside the skew, as at AWS", told, [(200, KEY.mac(MESSAGE))] * 3
    )
    ids = {got.headers["x-amzn-requestid"] for got in answers}
    wire.checks.equal("each time with an ID of its own", len(ids), 3)
    wire.refused(
        "and refused after it",
        wire.signed(minutes=-5.1),
        400,
        "InvalidSignatureException",
        re.compile("Signature expired: "),
    )
