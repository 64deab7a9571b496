# AWS's SDK for Ruby, version 3, against a real hsmac. Run by aws_program.py.
#
# It reads what it must know from stdin as JSON and tells a check a line: `ok` or `FAILED`, a tab,
# what it was.

require 'aws-sdk-kms'
require 'json'
require 'openssl'
require_relative 'later_model'

LaterModel.complete
KNOWN = JSON.parse($stdin.read, symbolize_names: true)
KEYS = KNOWN[:keys]
KEY = KEYS.find { |key| key[:spec] == 'HMAC_256' }
Errors = Aws::KMS::Errors
$failed = false

def holds(what, met, got = nil)
  p got unless met
  $failed ||= !met
  puts "#{met ? 'ok' : 'FAILED'}\t#{what}"
end

def same(what, got, expected) = holds(what, got == expected, { got: got, expected: expected })

# Checks an error's class.
def refused(what, kind)
  holds("#{what}: #{kind}", false, yield)
rescue Aws::Errors::ServiceError => e
  request = e.context.http_response.headers['x-amzn-requestid']
  holds("#{what}: #{kind}", e.instance_of?(kind) && request, e)
end

def mac(key, message)
  OpenSSL::HMAC.digest("SHA#{key[:spec].delete_prefix('HMAC_')}", [key[:material]].pack('H*'), message)
end

# This is all that moving from AWS takes: the endpoint. Without retries every answer is seen.
def client(secret = KNOWN[:secretAccessKey])
  Aws::KMS::Client.new(
    endpoint: KNOWN[:endpoint], region: KNOWN[:region], retry_limit: 0,
    access_key_id: KNOWN[:accessKeyId], secret_access_key: secret
  )
end

def macs(kms)
  KEYS.each do |key|
    of = { message: 'a message from Ruby', mac_algorithm: key[:algorithm] }
    right = mac(key, of[:message])
    key.values_at(:id, :arn, :alias, :aliasArn).each do |name|
      made = kms.generate_mac(key_id: name, **of)
      same("GenerateMac by #{name}", [made.key_id, made.mac], [key[:arn], right])
    end
    same("VerifyMac #{key[:spec]}", kms.verify_mac(key_id: key[:id], mac: right, **of).mac_valid, true)
    refused("VerifyMac #{key[:spec]} with a wrong MAC", Errors::KMSInvalidMacException) do
      kms.verify_mac(key_id: key[:id], mac: right.reverse, **of)
    end
  end
end

def refusals(kms)
  of = { key_id: KEY[:alias], message: 'm', mac_algorithm: 'HMAC_SHA_256' }
  {
    'an unknown key' => [{ key_id: KNOWN[:nobody] }, Errors::NotFoundException],
    "another spec's algorithm" => [{ mac_algorithm: 'HMAC_SHA_512' }, Errors::InvalidKeyUsageException],
    'a grant token' => [{ grant_tokens: ['token'] }, Errors::InvalidGrantTokenException],
    'a dry run' => [{ dry_run: true }, Errors::DryRunOperationException],
    'an empty message' => [{ message: '' }, Errors::ValidationException],
    '4,097 bytes' => [{ message: 'x' * 4097 }, Errors::ValidationException]
  }.each { |what, (change, kind)| refused("GenerateMac with #{what}", kind) { kms.generate_mac(of.merge(change)) } }
  refused('DisableKey by alias', Errors::InvalidArnException) { kms.disable_key(key_id: KEY[:alias]) }
  refused('a declared key', Errors::UnsupportedOperationException) { kms.disable_key(key_id: KNOWN[:declared]) }
  refused('a made-up marker', Errors::InvalidMarkerException) { kms.list_keys(marker: 'nonsense') }
  refused('a wrong secret', Errors::InvalidSignatureException) { client('x' * 40).list_keys }
end

def life(kms)
  made = kms.create_key(key_spec: 'HMAC_256', key_usage: 'GENERATE_VERIFY_MAC', description: 'from Ruby').key_metadata
  same('CreateKey', [made.key_spec, made.key_state, made.mac_algorithms, made.description],
       ['HMAC_256', 'Enabled', ['HMAC_SHA_256'], 'from Ruby'])
  holds('its creation date is a Time', (made.creation_date - Time.now).abs < 600, made.creation_date)
  of = { key_id: made.arn, message: 'm', mac_algorithm: 'HMAC_SHA_256' }
  before = kms.generate_mac(of).mac
  kms.disable_key(key_id: made.key_id)
  refused('GenerateMac with a disabled key', Errors::DisabledException) { kms.generate_mac(of) }
  kms.enable_key(key_id: made.key_id)
  same('the same MAC once it is enabled', kms.generate_mac(of).mac, before)
  scheduled = kms.schedule_key_deletion(key_id: made.key_id, pending_window_in_days: 7)
  same('ScheduleKeyDeletion', [scheduled.key_id, scheduled.key_state, scheduled.pending_window_in_days],
       [made.arn, 'PendingDeletion', 7])
  refused('GenerateMac with it', Errors::KMSInvalidStateException) { kms.generate_mac(of) }
  kms.cancel_key_deletion(key_id: made.key_id)
  same('its state once that is cancelled', kms.describe_key(key_id: made.key_id).key_metadata.key_state, 'Disabled')
end

def pages(kms)
  whole = kms.list_keys.keys.map(&:key_arn)
  paged = kms.list_keys(limit: 2).map { |page| page.keys.map(&:key_arn) }
  holds('list_keys: at most 2 on a page', paged.all? { |page| page.length <= 2 }, paged)
  same('list_keys: its pages joined', paged.flatten, whole)
  aliases = kms.list_aliases(limit: 2).flat_map(&:aliases).to_h { |one| [one.alias_name, one.target_key_id] }
  KEYS.each { |key| same("list_aliases: #{key[:alias]}", aliases[key[:alias]], key[:id]) }
end

%i[macs refusals life pages].each do |part|
  send(part, client)
rescue StandardError => e
  holds("#{part} comes to its end", false, e.full_message)
end
puts "aws-sdk-kms #{Aws::KMS::GEM_VERSION}, aws-sdk-core #{Aws::CORE_GEM_VERSION}, Ruby #{RUBY_VERSION}"
exit($failed ? 1 : 0)
