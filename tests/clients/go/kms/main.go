// The AWS SDK for Go, version 2, against a real hsmac. Run by aws_program.py.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"client/checks"
)

// Ends a hang; nothing takes long.
const limit = 60 * time.Second

type known struct {
	Endpoint        string       `json:"endpoint"`
	Region          string       `json:"region"`
	AccessKeyID     string       `json:"accessKeyId"`
	SecretAccessKey string       `json:"secretAccessKey"`
	Declared        string       `json:"declared"`
	Nobody          string       `json:"nobody"`
	Caller          string       `json:"caller"`
	Keys            []checks.Key `json:"keys"`
}

func main() {
	var known known
	checks.Read(&known)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	client := known.client(known.SecretAccessKey)

	for _, key := range known.Keys {
		generatesAndVerifies(ctx, client, key)
	}
	key := known.Keys[1]
	saysWhatIsWrong(ctx, client, key, known)
	made := createsAKey(ctx, client)
	changesItsState(ctx, client, made)
	names(ctx, client, key)
	tags(ctx, client, key)
	grants(ctx, client, known)
	pages(ctx, client, known)
	_, err := known.client("x").GenerateMac(ctx, generate(key, []byte("m")))
	refused("a wrong secret", err, "InvalidSignatureException")
	fmt.Printf("aws-sdk-go-v2 %s\n", aws.SDKVersion)
	checks.End()
}

// This is all that moving from AWS takes: the endpoint. Without retries every answer is seen.
func (known known) client(secret string) *kms.Client {
	return kms.New(kms.Options{
		Region:           known.Region,
		Credentials:      credentials.NewStaticCredentialsProvider(known.AccessKeyID, secret, ""),
		EndpointResolver: kms.EndpointResolverFromURL(known.Endpoint),
		Retryer:          aws.NopRetryer{},
	})
}

func generate(key checks.Key, message []byte) *kms.GenerateMacInput {
	return &kms.GenerateMacInput{
		KeyId:        aws.String(key.Alias),
		Message:      message,
		MacAlgorithm: types.MacAlgorithmSpec(key.Algorithm),
	}
}

func verify(key checks.Key, message, mac []byte) *kms.VerifyMacInput {
	return &kms.VerifyMacInput{
		KeyId:        aws.String(key.ID),
		Message:      message,
		MacAlgorithm: types.MacAlgorithmSpec(key.Algorithm),
		Mac:          mac,
	}
}

func generatesAndVerifies(ctx context.Context, client *kms.Client, key checks.Key) {
	message := []byte("a message from Go")
	for _, name := range []string{key.ID, key.ARN, key.Alias, key.AliasARN} {
		input := generate(key, message)
		input.KeyId = aws.String(name)
		made, err := client.GenerateMac(ctx, input)
		checks.Must(err)
		checks.Same("GenerateMac by "+name, made.Mac, key.MAC(message))
		checks.Same("its key", aws.ToString(made.KeyId), key.ARN)
	}
	good, err := client.VerifyMac(ctx, verify(key, message, key.MAC(message)))
	checks.Must(err)
	checks.Holds(key.Algorithm+": the MAC is valid", good.MacValid)
	wrong := key.MAC(message)
	wrong[0] ^= 1
	_, err = client.VerifyMac(ctx, verify(key, message, wrong))
	is[*types.KMSInvalidMacException](key.Algorithm+": a wrong MAC", err)
}

func saysWhatIsWrong(ctx context.Context, client *kms.Client, key checks.Key, known known) {
	message := []byte("m")
	for _, one := range []struct {
		what   string
		change func(*kms.GenerateMacInput)
		is     func(string, error)
	}{
		{"an unknown key", func(in *kms.GenerateMacInput) { in.KeyId = aws.String(known.Nobody) }, is[*types.NotFoundException]},
		{"another spec's algorithm", func(in *kms.GenerateMacInput) { in.MacAlgorithm = types.MacAlgorithmSpecHmacSha512 }, is[*types.InvalidKeyUsageException]},
		{"a grant token", func(in *kms.GenerateMacInput) { in.GrantTokens = []string{"token"} }, is[*types.InvalidGrantTokenException]},
		{"an empty message", func(in *kms.GenerateMacInput) { in.Message = []byte{} }, named("ValidationException")},
		{"4,097 bytes", func(in *kms.GenerateMacInput) { in.Message = make([]byte, 4097) }, named("ValidationException")},
	} {
		input := generate(key, message)
		one.change(input)
		_, err := client.GenerateMac(ctx, input)
		one.is("GenerateMac with "+one.what, err)
	}
	_, err := client.DisableKey(ctx, &kms.DisableKeyInput{KeyId: aws.String(key.Alias)})
	is[*types.InvalidArnException]("DisableKey by alias", err)
	_, err = client.DisableKey(ctx, &kms.DisableKeyInput{KeyId: aws.String(known.Declared)})
	// This model has that class, but not for DisableKey.
	refused("DisableKey of a declared key", err, "UnsupportedOperationException")
	_, err = client.ListKeys(ctx, &kms.ListKeysInput{Marker: aws.String("nonsense")})
	is[*types.InvalidMarkerException]("ListKeys from a made-up marker", err)

	var answer *http.ResponseError
	_, err = client.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: aws.String(known.Nobody)})
	checks.Holds("an error has a request ID and status 400", errors.As(err, &answer) &&
		answer.RequestID != "" && answer.HTTPStatusCode() == 400)
}

func createsAKey(ctx context.Context, client *kms.Client) checks.Key {
	made, err := client.CreateKey(ctx, &kms.CreateKeyInput{
		KeySpec:     types.KeySpecHmac256,
		KeyUsage:    types.KeyUsageTypeGenerateVerifyMac,
		Description: aws.String("from Go"),
		Tags:        []types.Tag{{TagKey: aws.String("team"), TagValue: aws.String("billing")}},
	})
	checks.Must(err)
	told := made.KeyMetadata
	checks.Same("CreateKey", []any{told.KeySpec, told.KeyState, told.MacAlgorithms, told.Origin},
		[]any{"HMAC_256", "Enabled", []string{"HMAC_SHA_256"}, "AWS_KMS"})
	checks.Holds("its creation date", time.Since(*told.CreationDate).Abs() < 10*time.Minute)
	_, err = client.CreateKey(ctx, &kms.CreateKeyInput{KeySpec: types.KeySpecHmac256})
	refused("CreateKey without KeyUsage", err, "ValidationException")
	return checks.Key{ID: *told.KeyId, ARN: *told.Arn, Alias: *told.KeyId, Algorithm: "HMAC_SHA_256"}
}

func changesItsState(ctx context.Context, client *kms.Client, key checks.Key) {
	id := aws.String(key.ID)
	before, err := client.GenerateMac(ctx, generate(key, []byte("m")))
	checks.Must(err)
	_, err = client.DisableKey(ctx, &kms.DisableKeyInput{KeyId: id})
	checks.Must(err)
	_, err = client.GenerateMac(ctx, generate(key, []byte("m")))
	is[*types.DisabledException]("GenerateMac with a disabled key", err)
	_, err = client.EnableKey(ctx, &kms.EnableKeyInput{KeyId: id})
	checks.Must(err)
	after, err := client.GenerateMac(ctx, generate(key, []byte("m")))
	checks.Must(err)
	checks.Same("the same MAC once it is enabled", after.Mac, before.Mac)

	scheduled, err := client.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: id, PendingWindowInDays: aws.Int32(7)})
	checks.Must(err)
	checks.Same("ScheduleKeyDeletion", []any{*scheduled.KeyId, scheduled.KeyState, *scheduled.PendingWindowInDays},
		[]any{key.ARN, "PendingDeletion", 7})
	_, err = client.GenerateMac(ctx, generate(key, []byte("m")))
	is[*types.KMSInvalidStateException]("GenerateMac with a key that will be deleted", err)
	told, err := client.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: id})
	checks.Must(err)
	checks.Holds("its DeletionDate", told.KeyMetadata.DeletionDate.Equal(*scheduled.DeletionDate))
	_, err = client.CancelKeyDeletion(ctx, &kms.CancelKeyDeletionInput{KeyId: id})
	checks.Must(err)
	_, err = client.CancelKeyDeletion(ctx, &kms.CancelKeyDeletionInput{KeyId: id})
	is[*types.KMSInvalidStateException]("CancelKeyDeletion again", err)
}

func names(ctx context.Context, client *kms.Client, key checks.Key) {
	create := &kms.CreateAliasInput{AliasName: aws.String("alias/go"), TargetKeyId: aws.String(key.ID)}
	_, err := client.CreateAlias(ctx, create)
	checks.Must(err)
	_, err = client.CreateAlias(ctx, create)
	is[*types.AlreadyExistsException]("CreateAlias again", err)
	_, err = client.DeleteAlias(ctx, &kms.DeleteAliasInput{AliasName: create.AliasName})
	checks.Must(err)
	_, err = client.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: aws.String("alias/"), TargetKeyId: aws.String(key.ID)})
	is[*types.InvalidAliasNameException]("an alias without a name", err)
}

func tags(ctx context.Context, client *kms.Client, key checks.Key) {
	tag := func(name string) []types.Tag {
		return []types.Tag{{TagKey: aws.String(name), TagValue: aws.String("1")}}
	}
	_, err := client.TagResource(ctx, &kms.TagResourceInput{KeyId: aws.String(key.ID), Tags: tag("go")})
	checks.Must(err)
	_, err = client.TagResource(ctx, &kms.TagResourceInput{KeyId: aws.String(key.ID), Tags: tag("aws:go")})
	is[*types.TagException]("a tag of AWS's", err)
	_, err = client.PutKeyPolicy(ctx, &kms.PutKeyPolicyInput{KeyId: aws.String(key.ID), PolicyName: aws.String("default"), Policy: aws.String("{}")})
	is[*types.MalformedPolicyDocumentException]("a policy without statements", err)
}

func grants(ctx context.Context, client *kms.Client, known known) {
	policy := fmt.Sprintf(`{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Principal": {"AWS": %q},
		"NotAction": "kms:GenerateMac", "Resource": "*"}}`, known.Caller)
	made, err := client.CreateKey(ctx, &kms.CreateKeyInput{
		KeySpec: types.KeySpecHmac256, KeyUsage: types.KeyUsageTypeGenerateVerifyMac, Policy: aws.String(policy)})
	checks.Must(err)
	id := made.KeyMetadata.KeyId
	key := checks.Key{ID: *id, Alias: *id, Algorithm: "HMAC_SHA_256"}
	denied := func(what string) {
		_, err := client.GenerateMac(ctx, generate(key, []byte("m")))
		refused(what, err, "AccessDeniedException")
	}
	denied("GenerateMac without a grant")
	create := &kms.CreateGrantInput{KeyId: id, GranteePrincipal: aws.String(known.Caller),
		RetiringPrincipal: aws.String(known.Caller), Operations: []types.GrantOperation{types.GrantOperationGenerateMac}}
	first, err := client.CreateGrant(ctx, create)
	checks.Must(err)
	second, err := client.CreateGrant(ctx, create)
	checks.Must(err)
	input := generate(key, []byte("m"))
	input.GrantTokens = []string{*first.GrantToken}
	_, err = client.GenerateMac(ctx, input)
	checks.Must(err)
	listed := map[string]bool{}
	pages := kms.NewListGrantsPaginator(client, &kms.ListGrantsInput{KeyId: id, Limit: aws.Int32(1)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		checks.Must(err)
		for _, grant := range page.Grants {
			listed[*grant.GrantId] = *grant.KeyId == *made.KeyMetadata.Arn && !grant.CreationDate.IsZero()
		}
	}
	checks.Same("ListGrantsPaginator", listed, map[string]bool{*first.GrantId: true, *second.GrantId: true})
	retirable, err := client.ListRetirableGrants(ctx, &kms.ListRetirableGrantsInput{RetiringPrincipal: aws.String(known.Caller)})
	checks.Must(err)
	checks.Same("ListRetirableGrants", len(retirable.Grants), 2)
	_, err = client.RetireGrant(ctx, &kms.RetireGrantInput{GrantToken: first.GrantToken})
	checks.Must(err)
	_, err = client.GenerateMac(ctx, generate(key, []byte("m")))
	checks.Must(err)
	revoke := &kms.RevokeGrantInput{KeyId: id, GrantId: second.GrantId}
	_, err = client.RevokeGrant(ctx, revoke)
	checks.Must(err)
	denied("GenerateMac after RetireGrant and RevokeGrant")
	_, err = client.RevokeGrant(ctx, revoke)
	is[*types.NotFoundException]("RevokeGrant again", err)
	_, err = client.ListGrants(ctx, &kms.ListGrantsInput{KeyId: id, GrantId: aws.String("x")})
	is[*types.InvalidGrantIdException]("ListGrants of what is no grant ID", err)
}

func pages(ctx context.Context, client *kms.Client, known known) {
	whole, err := client.ListKeys(ctx, &kms.ListKeysInput{})
	checks.Must(err)
	var all []types.KeyListEntry
	keys := kms.NewListKeysPaginator(client, &kms.ListKeysInput{Limit: aws.Int32(2)})
	for keys.HasMorePages() {
		page, err := keys.NextPage(ctx)
		checks.Must(err)
		checks.Holds("ListKeysPaginator: at most 2 on a page", len(page.Keys) <= 2)
		all = append(all, page.Keys...)
	}
	arns := func(keys []types.KeyListEntry) (arns []string) {
		for _, key := range keys {
			arns = append(arns, *key.KeyArn)
		}
		return
	}
	checks.Same("ListKeysPaginator: its pages joined", arns(all), arns(whole.Keys))
	targets := map[string]string{}
	aliases := kms.NewListAliasesPaginator(client, &kms.ListAliasesInput{Limit: aws.Int32(2)})
	for aliases.HasMorePages() {
		page, err := aliases.NextPage(ctx)
		checks.Must(err)
		for _, alias := range page.Aliases {
			targets[*alias.AliasName] = aws.ToString(alias.TargetKeyId)
		}
	}
	for _, key := range known.Keys {
		checks.Same("ListAliasesPaginator: "+key.Alias, targets[key.Alias], key.ID)
	}
}

// Tells whether an error is of a class that KMS's model has.
func is[Class smithy.APIError](what string, err error) {
	var class Class
	if !errors.As(err, &class) {
		fmt.Println(err)
	}
	checks.Holds(fmt.Sprintf("%s: %T", what, class), errors.As(err, &class))
}

// Tells whether an error has this name, which KMS's model does not have.
func refused(what string, err error, name string) {
	var fault smithy.APIError
	if !errors.As(err, &fault) || fault.ErrorCode() != name {
		fmt.Println(err)
	}
	checks.Holds(what+": "+name, errors.As(err, &fault) && fault.ErrorCode() == name)
}

func named(name string) func(string, error) {
	return func(what string, err error) { refused(what, err, name) }
}
