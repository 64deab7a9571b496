# What KMS's model had no HMAC keys for when Debian's ruby-aws-sdk-kms was made (1.24.0, of 2019):
# GenerateMac, VerifyMac, and the members of other operations that tell of such keys. The classes are
# those that the SDK builds its own model of, so parameters, signatures, requests and answers are its.

module LaterModel
  include Seahorse::Model

  # Adds to the SDK's model what it lacks; a newer one lacks nothing.
  def self.complete
    return if Aws::KMS::Client.api.operation_names.include?(:generate_mac)

    members(Aws::KMS::ClientApi::CreateKeyRequest, key_spec: text)
    members(Aws::KMS::ClientApi::KeyMetadata, key_spec: text, mac_algorithms: list(text))
    members(Aws::KMS::ClientApi::ScheduleKeyDeletionResponse, key_state: text, pending_window_in_days: number)
    question = { key_id: text, message: blob, mac_algorithm: text, grant_tokens: list(text), dry_run: flag }
    answer = { key_id: text, mac_algorithm: text }
    operation('GenerateMac', question, answer.merge(mac: blob))
    operation('VerifyMac', question.merge(mac: blob), answer.merge(mac_valid: flag))
  end

  def self.text = Shapes::StringShape.new(name: 'Text')
  def self.blob = Shapes::BlobShape.new(name: 'Blob')
  def self.flag = Shapes::BooleanShape.new(name: 'Flag')
  def self.number = Shapes::IntegerShape.new(name: 'Number')

  def self.list(of)
    Shapes::ListShape.new(name: 'List').tap { |list| list.member = Shapes::ShapeRef.new(shape: of) }
  end

  def self.members(structure, shapes)
    shapes.each do |name, shape|
      reference = Shapes::ShapeRef.new(shape: shape, location_name: name.to_s.split('_').map(&:capitalize).join)
      structure.add_member(name, reference)
    end
    structure.struct_class = Struct.new(*structure.member_names) { include Aws::Structure }
  end

  def self.operation(name, question, answer)
    input, output = { 'Request' => question, 'Response' => answer }.map do |suffix, shapes|
      structure = Shapes::StructureShape.new(name: name + suffix)
      members(structure, shapes)
      Shapes::ShapeRef.new(shape: structure)
    end
    made = Operation.new
    made.name, made.http_method, made.http_request_uri = name, 'POST', '/'
    made.input, made.output = input, output
    method = name.gsub(/(?<!^)[A-Z]/) { |letter| "_#{letter}" }.downcase.to_sym
    Aws::KMS::Client.api.add_operation(method, made)
    Aws::KMS::Client.define_method(method) { |params = {}, options = {}| build_request(method, params).send_request(options) }
  end
end
