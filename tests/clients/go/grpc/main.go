// Go's gRPC against a real hsmac, with what Debian's protoc generates from the published proto.
//
// Run by grpc_go.py.
package main

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"client/checks"
	pb "hsmac/v1"
)

// Ends a hang; no call takes long.
const limit = 30 * time.Second

type known struct {
	Address string       `json:"address"`
	Keys    []checks.Key `json:"keys"`
}

func main() {
	var known known
	checks.Read(&known)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	channel, err := grpc.DialContext(ctx, known.Address, grpc.WithInsecure(), grpc.WithBlock())
	checks.Must(err)
	defer channel.Close()
	macs, keys := pb.NewMacServiceClient(channel), pb.NewKeyServiceClient(channel)

	for _, key := range known.Keys {
		generatesAndVerifies(ctx, macs, key)
	}
	saysWhatIsWrong(ctx, macs, known.Keys[0])
	keepsADeadline(macs, known.Keys[0])

	listed, err := keys.ListKeys(ctx, &pb.ListKeysRequest{})
	checks.Must(err)
	checks.Holds("ListKeys has every key", len(listed.Keys) >= len(known.Keys))
	described, err := keys.DescribeKey(ctx, &pb.DescribeKeyRequest{KeyId: known.Keys[0].Alias})
	checks.Must(err)
	checks.Holds("DescribeKey by alias", described.KeyMetadata.Arn == known.Keys[0].ARN)
	fmt.Printf("grpc-go %s\n", grpc.Version)
	checks.End()
}

func generatesAndVerifies(ctx context.Context, macs pb.MacServiceClient, key checks.Key) {
	message := []byte("a message from Go")
	algorithm := pb.MacAlgorithm(pb.MacAlgorithm_value[key.Algorithm])
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	made, err := macs.GenerateMac(ctx, &pb.GenerateMacRequest{
		KeyId:         key.Alias,
		Message:       message,
		MacAlgorithm:  algorithm,
		MessageCrc32C: proto.Uint32(crc32.Checksum(message, castagnoli)),
	})
	checks.Must(err)
	checks.Holds(key.Algorithm+": the MAC is Go's own", bytes.Equal(made.Mac, key.MAC(message)))
	checks.Holds(key.Algorithm+": the key's ARN comes back", made.KeyId == key.ARN)
	checks.Holds(key.Algorithm+": the message's checksum is verified", made.VerifiedMessageCrc32C)
	checks.Holds(key.Algorithm+": the MAC's checksum is right", made.GetMacCrc32C() == crc32.Checksum(made.Mac, castagnoli))

	verify := &pb.VerifyMacRequest{KeyId: key.ID, Message: message, MacAlgorithm: algorithm, Mac: made.Mac}
	good, err := macs.VerifyMac(ctx, verify)
	checks.Must(err)
	checks.Holds(key.Algorithm+": the MAC is valid", good.MacValid)
	verify.Mac[0] ^= 1
	_, err = macs.VerifyMac(ctx, verify)
	checks.Holds(key.Algorithm+": a wrong MAC is an error", status.Code(err) == codes.InvalidArgument)
	checks.Holds(key.Algorithm+": with its reason", reason(err) == "KMS_INVALID_MAC")
}

func saysWhatIsWrong(ctx context.Context, macs pb.MacServiceClient, key checks.Key) {
	_, err := macs.GenerateMac(ctx, &pb.GenerateMacRequest{KeyId: key.ID})
	checks.Holds("no message and no algorithm", status.Code(err) == codes.InvalidArgument && reason(err) == "VALIDATION")
	var fields []string
	for _, detail := range status.Convert(err).Details() {
		if bad, is := detail.(*errdetails.BadRequest); is {
			for _, violation := range bad.FieldViolations {
				fields = append(fields, violation.Field)
			}
		}
	}
	checks.Holds("the broken fields are named", fmt.Sprint(fields) == "[message mac_algorithm]")
	_, err = macs.GenerateMac(ctx, &pb.GenerateMacRequest{
		KeyId:        "alias/nobody",
		Message:      []byte("m"),
		MacAlgorithm: pb.MacAlgorithm_HMAC_SHA_256,
	})
	checks.Holds("an unknown alias", status.Code(err) == codes.NotFound && reason(err) == "NOT_FOUND")
}

func keepsADeadline(macs pb.MacServiceClient, key checks.Key) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Nanosecond)
	defer cancel()
	_, err := macs.GenerateMac(ctx, &pb.GenerateMacRequest{KeyId: key.ID})
	checks.Holds("a deadline that has passed", status.Code(err) == codes.DeadlineExceeded)
}

func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, is := detail.(*errdetails.ErrorInfo); is && info.Domain == "hsmac" {
			return info.Reason
		}
	}
	return ""
}
