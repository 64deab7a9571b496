// Package checks is what Go's clients share: what they know of the service, which comes on stdin as
// JSON, and how they tell a check: a line with `ok` or `FAILED`, a tab, what it was.
package checks

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"os"
)

// Key is a key of the service whose material is known.
type Key struct {
	ID        string `json:"id"`
	ARN       string `json:"arn"`
	Alias     string `json:"alias"`
	AliasARN  string `json:"aliasArn"`
	Spec      string `json:"spec"`
	Algorithm string `json:"algorithm"`
	Material  string `json:"material"`
}

var hashes = map[string]func() hash.Hash{
	"HMAC_SHA_224": sha256.New224,
	"HMAC_SHA_256": sha256.New,
	"HMAC_SHA_384": sha512.New384,
	"HMAC_SHA_512": sha512.New,
}

// MAC makes the MAC that the service must make.
func (key Key) MAC(message []byte) []byte {
	material, err := hex.DecodeString(key.Material)
	Must(err)
	mac := hmac.New(hashes[key.Algorithm], material)
	mac.Write(message)
	return mac.Sum(nil)
}

// Read reads what is known.
func Read(known any) {
	Must(json.NewDecoder(os.Stdin).Decode(known))
}

var failed bool

// Holds tells a check.
func Holds(what string, holds bool) {
	told := "ok"
	if !holds {
		told, failed = "FAILED", true
	}
	fmt.Printf("%s\t%s\n", told, what)
}

// Same tells whether two values print alike, and both of them if they do not.
func Same(what string, got, expected any) {
	one, other := fmt.Sprint(got), fmt.Sprint(expected)
	if one != other {
		fmt.Printf("expected %s\n     got %s\n", other, one)
	}
	Holds(what, one == other)
}

// Must ends the program if there is an error.
func Must(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// End ends the program: with 1 if a check failed.
func End() {
	if failed {
		os.Exit(1)
	}
}
