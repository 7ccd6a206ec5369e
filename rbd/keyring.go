package rbd

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"os"
	"strings"
)

// Types of CephX keys, as a key's first two bytes have them: CEPH_CRYPTO_AES and
// CEPH_CRYPTO_AES256KRB5 of Ceph's src/include/ceph_fs.h.
const (
	keyBroken  = 0 // no key at all
	keyAES     = 1
	keyAES256K = 2
)

// keyType is the type of a key in base64: le16 type, le32 seconds and le32
// nanoseconds of its creation, le16 length, secret. A type that is unknown here
// is returned as it is.
func keyType(key string) int {
	b, err := base64.StdEncoding.DecodeString(key)
	if err != nil || len(b) < 12 || len(b) != 12+int(binary.LittleEndian.Uint16(b[10:])) {
		return keyBroken
	}
	kind := int(binary.LittleEndian.Uint16(b))
	if kind == keyAES && len(b) != 12+16 || kind == keyAES256K && len(b) != 12+32 {
		return keyBroken
	}
	return kind
}

// userKey is whose key it is, and of which type. The key itself is never kept:
// it must not come into an error.
type userKey struct {
	user string
	kind int
}

// keys is where librados looks for the user's key, and what is there.
type keys struct {
	place string    // the file or option that counts; a list if no file of it is there
	found bool      // that place is there
	err   error     // why it cannot be read
	list  []userKey // all of it: librados reads all or none
}

// findKeys looks where librados does, in its order: the option key, the option
// keyfile, the first of the keyrings that can be opened.
func findKeys(user string, option func(string) string) keys {
	if key := option("key"); key != "" {
		return keys{place: "the configuration (key)", found: true, list: []userKey{{user, keyType(key)}}}
	}
	if path := option("keyfile"); path != "" {
		text, err := os.ReadFile(path)
		return keys{place: path, found: true, err: err, list: []userKey{{user, keyType(strings.TrimSpace(string(text)))}}}
	}
	k := keys{place: strings.Trim(option("keyring"), ", ")}
	for _, path := range strings.FieldsFunc(k.place, func(r rune) bool { return strings.ContainsRune(",; ", r) }) {
		list, err := readKeyring(path)
		if err == nil {
			return keys{place: path, found: true, list: list}
		}
		if !os.IsNotExist(err) && !k.found {
			k = keys{place: path, found: true, err: err}
		}
	}
	return k
}

// readKeyring reads whose keys a keyring holds.
func readKeyring(path string) (list []userKey, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	user := ""
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if name, ok := strings.CutPrefix(line, "["); ok {
			user, _, _ = strings.Cut(name, "]")
			user = strings.TrimSpace(user)
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if ok && user != "" && strings.TrimSpace(name) == "key" {
			list = append(list, userKey{user, keyType(strings.Trim(strings.TrimSpace(value), `"`))})
		}
	}
	return list, lines.Err()
}

// of is the user's own, nil if it has none.
func (k keys) of(user string) *userKey {
	for i := range k.list {
		if k.list[i].user == user {
			return &k.list[i]
		}
	}
	return nil
}

// worst is a key that makes this librados refuse all that are beside it: one
// that is broken, or of a type that it may not know. nil if there is none.
func (k keys) worst(ceph int) *userKey {
	for i := range k.list {
		if kind := k.list[i].kind; kind != keyAES && (kind != keyAES256K || ceph < knowsAES256K) {
			return &k.list[i]
		}
	}
	return nil
}
