package child

import (
	"regexp"
	"sync"
)

const (
	headKept = 16 << 10
	tailKept = 48 << 10
)

// output keeps the beginning and the end of what a child prints, in bytes.
type output struct {
	mu   sync.Mutex
	head []byte
	tail []byte
	lost int64
}

// Write implements io.Writer, and never fails.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := min(len(p), headKept-len(o.head))
	o.head = append(o.head, p[:n]...)
	o.tail = append(o.tail, p[n:]...)
	if over := len(o.tail) - tailKept; over > 0 {
		o.lost += int64(over)
		o.tail = append(o.tail[:0], o.tail[over:]...)
	}
	return len(p), nil
}

// String is what was printed, without keys.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := string(o.head)
	if o.lost > 0 {
		text += "\n[…]\n"
	}
	return Redact(text + string(o.tail))
}

// CephX keys in base64: of type aes they begin with AQ, of type aes256k with Ag.
// librados prints a keyring's line that it cannot read.
var (
	keyPattern   = regexp.MustCompile(`A[Qg][A-Za-z0-9+/]{20,}={0,2}`)
	namedPattern = regexp.MustCompile(`(?i)\b((?:secret_?|access_?|encrypted_?)?key|secret|password|passphrase)(\s*[=:]\s*)\S+`)
)

// Redact takes out of a text what may be a key.
func Redact(text string) string {
	return namedPattern.ReplaceAllString(keyPattern.ReplaceAllString(text, "[key]"), "$1$2[key]")
}
