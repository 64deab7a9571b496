"""A /status.json that has every kind of trouble at once, for what shows it. It is made up, and has the members
that hsmac sends."""

import math
import time

NOW = int(time.time())
MINUTE, HOUR, DAY = 60, 3600, 86400
ACCOUNT = "arn:aws:kms:eu-central-1:111122223333:key/"


def sample(index):
    """Every ten seconds one: a rising load, an outage of four minutes twenty minutes ago."""
    ago = 10 * (359 - index)
    wave = math.sin(index / 28) + 0.35 * math.sin(index / 5.3)
    is_away = 16 * MINUTE < ago < 20 * MINUTE
    rate = 0 if is_away else max(0, 820 + 190 * wave + index)
    slow = 4 if 12 * MINUTE < ago < 22 * MINUTE else 1
    return {
        "at": NOW - ago,
        "rate": [rate, rate * 0.62, 6 + 3 * math.sin(index / 9)],
        "p99": [None if is_away else 0.002 * slow, None if is_away else (0.005 if wave > 0.9 else 0.002) * slow, 0.01],
        "our_faults": 340 + 60 * wave if is_away else 0,
        "throttled": 0,
        "limited": 0,
        "denied": 0.3 if index % 40 == 0 else 0,
        "queue_p99": None if is_away else (0.0005 if wave < 0.8 else 0.001) * slow,
    }


def host(generation, since, jobs=0, stuck=False):
    return {"generation": generation, "since": NOW - since, "sessions": 4, "jobs": jobs, "stuck": stuck}


def token(name, state, since, hosts, **more):
    return {
        "name": name,
        "state": state,
        "reason": state,
        "advice": None,
        "since": NOW - since,
        "hosts": hosts,
        "hosts_starting": 0,
        "hosts_configured": 2,
        "macs": 0,
        "mac_p50": None,
        "mac_p99": None,
        "faults": 0,
        "last_fault": None,
        "host_ends": {"planned": 0, "crash": 0, "hang": 0, "lost": 0, "protocol": 0},
    } | more


def request(number):
    return f"5d9e2a4c-71c3-4f0e-9b1d-{number:012x}"


AWAY = "Look at the HSM and at the way to it. hsmac asks again by itself; at once with: hsmac token kick west"
FAULT = {
    "at": NOW - 16 * MINUTE,
    "function": "C_Sign",
    "code": "CKR_DEVICE_ERROR",
    "reason": "the device reports a fault",
}
TROUBLED = {
    "version": 1,
    "hsmac": "0.1.0",
    "at": NOW,
    "started": NOW - 9 * DAY,
    "summary": "Not ready: 1 of 4 tokens serve; west: no slot has a token payments.",
    "advice": AWAY,
    "about": "tokens",
    "well": False,
    "ready": False,
    "checks": [
        {"name": "serving", "good": True, "reason": "listening"},
        {"name": "token", "good": False, "reason": "1 of 4 tokens serve; west: no slot has a token payments"},
    ],
    "groups": [
        {
            "name": "payments",
            "queued": 17,
            "queue_limit": 1024,
            "queue_wait_p99": 0.002,
            "tokens": [
                token(
                    "east",
                    "up",
                    9 * DAY,
                    [host(1, 9 * DAY, 3), host(7, 16 * MINUTE, 2)],
                    macs=812_431_977,
                    mac_p50=0.0005,
                    mac_p99=0.002,
                    faults=12,
                    last_fault=FAULT,
                    host_ends={"planned": 2, "crash": 4, "hang": 1, "lost": 0, "protocol": 0},
                ),
                token(
                    "west",
                    "away",
                    20 * MINUTE,
                    [],
                    reason="no slot has a token payments",
                    advice=AWAY,
                    hosts_starting=1,
                    macs=790_004_310,
                    mac_p50=0.0005,
                    mac_p99=0.005,
                    faults=3,
                    last_fault=FAULT | {"function": "C_GetTokenInfo", "code": "CKR_TOKEN_NOT_PRESENT", "reason": ""},
                    host_ends={"planned": 0, "crash": 0, "hang": 0, "lost": 6, "protocol": 0},
                ),
            ],
        },
        {
            "name": "archive",
            "queued": 0,
            "queue_limit": 1024,
            "queue_wait_p99": 0.001,
            "tokens": [
                token(
                    "archive",
                    "degraded",
                    3 * HOUR,
                    [host(4, 3 * HOUR, 4, stuck=True)],
                    reason="one host serves, and one cannot come up: C_OpenSession CKR_SESSION_COUNT",
                    advice="It serves with fewer hosts. Look at the reason, and at how many sessions the HSM gives.",
                    macs=48_210,
                    mac_p50=0.005,
                    mac_p99=0.05,
                )
            ],
        },
        {
            "name": "lab",
            "queued": 0,
            "queue_limit": 64,
            "queue_wait_p99": None,
            "tokens": [
                token(
                    "lab",
                    "pin_refused",
                    2 * DAY,
                    [],
                    reason="the token refuses the PIN (C_Login CKR_PIN_INCORRECT)",
                    advice="Correct the PIN file; nothing is tried before. If it is right: hsmac token unlock lab",
                )
            ],
        },
    ],
    "keys": {"Enabled": 214, "Disabled": 6, "PendingDeletion": 2, "Unavailable": 2},
    "troubled_keys": [
        {
            "arn": ACCOUNT + "1234abcd-12ab-34cd-56ef-1234567890ab",
            "description": "webhooks of the shop",
            "reason": "the token has no such object",
        },
        {
            "arn": ACCOUNT + "9f1e77aa-3d51-4c77-8a42-0c5be1d0a911",
            "description": "<script>alert(1)</script>",
            "reason": "its check value differs: the object is another key than before",
        },
    ],
    "deletions": [
        {"arn": ACCOUNT + "77aa0011-0c7b-49f6-9a11-8f3f2f6d2b10", "description": "sessions, 2024", "at": NOW + 7 * DAY + 60},
        {"arn": ACCOUNT + "c0ffee00-5b1a-4d2e-8c3f-aa55aa55aa55", "description": "", "at": NOW + 26 * DAY},
    ],
    "deletions_held": True,
    "deletion_alarms": 1,
    "calls": [
        {"wire": "grpc", "operation": "GenerateMac", "exception": None, "count": 1_204_332_001},
        {"wire": "grpc", "operation": "GenerateMac", "exception": "KeyUnavailableException", "count": 81_313},
    ],
    "faults": [
        {
            "at": NOW - 16 * MINUTE - 2 * number,
            "request_id": request(0xA0 + number),
            "wire": "grpc" if number % 2 else "aws",
            "operation": "GenerateMac",
            "exception": "KeyUnavailableException" if number else "DependencyTimeoutException",
            "cause": "no host of payments serves" if number else "no answer within the deadline of 5 s",
            "advice": "Look at the token's state and at the key in trouble; clients retry."
            if number
            else "The token was too slow, or the queue too long: look at the wait in the queue and at the hosts.",
        }
        for number in range(4)
    ],
    "throttled": [
        {
            "principal": "arn:aws:iam::111122223333:role/batch",
            "quota": "cryptographic_operations_symmetric",
            "count": 12_031,
            "at": NOW - 2 * MINUTE,
        },
    ],
    "refusals": [
        {
            "caller": "arn:aws:iam::111122223333:user/reports",
            "wire": "aws",
            "operation": "GenerateMac",
            "exception": "ThrottlingException",
            "count": 1_911,
            "at": NOW - 18 * MINUTE,
            "request_id": request(0xB1),
        },
        {
            "caller": None,
            "wire": "aws",
            "operation": "DescribeKey",
            "exception": "InvalidSignatureException",
            "count": 12,
            "at": NOW - 3 * HOUR,
            "request_id": request(0xB2),
        },
    ],
    "connections": [
        {"wire": "grpc", "authenticated": 212, "authenticated_limit": 1024, "unauthenticated": 1, "unauthenticated_limit": 256},
        {"wire": "aws", "authenticated": 38, "authenticated_limit": 1024, "unauthenticated": 4, "unauthenticated_limit": 256},
    ],
    "certificates": [
        {"listener": "grpc", "kind": "certificate", "ends": NOW + 2 * DAY + HOUR},
        {"listener": "aws", "kind": "certificate", "ends": NOW + 61 * DAY},
        {"listener": "grpc", "kind": "client_ca", "ends": NOW + 900 * DAY},
    ],
    "conditions": [
        {
            "name": "hsmac.reload",
            "words": "the configuration could not be reloaded, and the old settings serve",
            "advice": "The log says what is wrong; so does hsmac check. Mend it and send SIGHUP.",
        }
    ],
    "pending_restart": ["grpc.listen"],
    "history": [sample(index) for index in range(360)],
}
