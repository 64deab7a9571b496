"""boto3 against a real hsmac: every operation that applies to HMAC keys, every exception by class.

    python aws_boto3.py PATH-OF-HSMAC [FAULT-TOKEN]      (requirements.txt beside this file)

With the library of tests/fault-token the errors that only a token brings are reached too.
"""

import os
import pathlib
import sys

import boto3

import boto3_grants
import boto3_keys
import boto3_macs
import boto3_others
from boto3_kms import client
from service import clean_environment, run


def suite(checks, service):
    print(f"boto3 {boto3.__version__}")
    kms = client(service)
    checks.part(boto3_macs.aws_s_own_example, checks, kms)
    checks.part(boto3_macs.macs, checks, kms)
    checks.part(boto3_macs.refused_macs, checks, kms, client(service, parameter_validation=False))
    checks.part(boto3_macs.metadata_of_answers, checks, service)
    checks.part(boto3_macs.random_bytes, checks, kms, client(service, parameter_validation=False))
    made = checks.part(boto3_keys.new_keys, checks, kms) or {}
    checks.part(boto3_keys.refused_keys, checks, kms, client(service, parameter_validation=False))
    for name, part in [("HMAC_256", boto3_keys.life), ("HMAC_384", boto3_keys.aliases), ("HMAC_512", boto3_keys.tags)]:
        if name in made:
            checks.part(part, checks, kms, made[name])
    checks.part(boto3_keys.names_of_keys, checks, kms)
    checks.part(boto3_keys.declared_key, checks, kms)
    checks.part(boto3_keys.pages, checks, kms)
    checks.part(boto3_keys.last_usage, checks, kms)
    key = kms.create_key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")["KeyMetadata"]["KeyId"]
    checks.part(boto3_keys.policies, checks, kms, key)
    checks.part(boto3_grants.life, checks, kms)
    checks.part(boto3_grants.pages, checks, kms)
    checks.part(boto3_grants.refusals, checks, kms, client(service, parameter_validation=False))
    checks.part(boto3_others.rotation, checks, kms, client(service, parameter_validation=False))
    checks.part(boto3_others.operations_of_other_keys, checks, kms)
    checks.part(boto3_others.keys_of_other_kinds, checks, kms)
    checks.part(boto3_others.every_operation_of_the_model, checks, client(service, parameter_validation=False))
    checks.part(boto3_others.callers, checks, service)
    checks.part(boto3_others.full_disk, checks, kms, service)
    checks.part(boto3_others.stuck_token, checks, service)
    checks.part(boto3_others.throttled, checks, service)
    checks.part(boto3_others.token_away, checks, service)
    if len(sys.argv) > 2:
        checks.part(boto3_others.faulty_token, checks, service, pathlib.Path(sys.argv[2]).resolve())


if __name__ == "__main__":
    for name in set(os.environ) - set(clean_environment()):
        del os.environ[name]
    os.environ |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    run("boto3", suite, sys.argv[1])
