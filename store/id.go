package store

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"

	"github.com/zeebo/blake3"
)

// Checksum is the BLAKE3-256 of a chunk's or a map node's raw bytes.
type Checksum [32]byte

// Sum computes the checksum of raw bytes.
func Sum(p []byte) Checksum { return blake3.Sum256(p) }

// ParseChecksum reads what Checksum.String prints.
func ParseChecksum(s string) (c Checksum, err error) {
	err = parseHex(c[:], s, "checksum")
	return c, err
}

func (c Checksum) String() string { return hex.EncodeToString(c[:]) }

// MarshalText makes JSON hold the 64 hex digits.
func (c Checksum) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (c *Checksum) UnmarshalText(p []byte) (err error) {
	*c, err = ParseChecksum(string(p))
	return err
}

// RepositoryID names a repository for ever: 128 random bits.
type RepositoryID [16]byte

// NewRepositoryID draws an id.
func NewRepositoryID() (id RepositoryID) {
	rand.Read(id[:])
	return id
}

// ParseRepositoryID reads what RepositoryID.String prints.
func ParseRepositoryID(s string) (id RepositoryID, err error) {
	err = parseHex(id[:], s, "repository id")
	return id, err
}

func (id RepositoryID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText makes JSON hold the 32 hex digits.
func (id RepositoryID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (id *RepositoryID) UnmarshalText(p []byte) (err error) {
	*id, err = ParseRepositoryID(string(p))
	return err
}

// RunID names one run of backy that writes to a repository: 34 bits of seconds
// since 1970, so that ids sort by time, then 30 random bits. 0 is no run.
type RunID uint64

const runRandomBits = 30

// NewRunID draws an id for a run that starts at now.
func NewRunID(now time.Time) RunID {
	var p [8]byte
	rand.Read(p[:])
	random := binary.BigEndian.Uint64(p[:]) & (1<<runRandomBits - 1)
	return RunID(uint64(now.Unix())<<runRandomBits | random)
}

// ParseRunID reads what RunID.String prints.
func ParseRunID(s string) (RunID, error) {
	var p [8]byte
	if err := parseHex(p[:], s, "run id"); err != nil {
		return 0, err
	}
	return RunID(binary.BigEndian.Uint64(p[:])), nil
}

func (r RunID) String() string { return fmt.Sprintf("%016x", uint64(r)) }

// Time is when the run started, to the second, by its own clock.
func (r RunID) Time() time.Time { return time.Unix(int64(r>>runRandomBits), 0) }

// MarshalText makes JSON hold the 16 hex digits.
func (r RunID) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (r *RunID) UnmarshalText(p []byte) (err error) {
	*r, err = ParseRunID(string(p))
	return err
}

// LevelNumber counts the levels of one backup name, from 1. 0 is no level.
type LevelNumber uint32

// ParseLevelNumber reads a number from 1, in decimal digits without a sign.
func ParseLevelNumber(s string) (LevelNumber, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 || s[0] == '+' {
		return 0, fmt.Errorf("level number %q: not a number from 1 to %d", s, uint32(1<<32-1))
	}
	return LevelNumber(n), nil
}

func (n LevelNumber) String() string { return strconv.FormatUint(uint64(n), 10) }

// PackID names a pack among those of its kind: the run that wrote it and its
// place in that run. All generations of a pack share it.
type PackID struct {
	Run RunID
	Seq uint32
}

func (p PackID) String() string { return fmt.Sprintf("%s/%08x", p.Run, p.Seq) }

// Ref is a reference to a chunk or a map node: its checksum, and where it is
// kept. The index counts the entries of the pack's table, so it stays true
// when the pack is written anew as its next generation.
type Ref struct {
	Sum   Checksum `json:"checksum"`
	Pack  PackID   `json:"pack"`
	Index uint32   `json:"index"`
}

// IsZero tells the reference of a hole.
func (r Ref) IsZero() bool { return r == Ref{} }

// MarshalText makes JSON hold run/seq.
func (p PackID) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (p *PackID) UnmarshalText(text []byte) error {
	s := string(text)
	if len(s) != 25 || s[16] != '/' {
		return fmt.Errorf("pack id %q: want 16 hex digits, a slash, 8 hex digits", s)
	}
	run, err := ParseRunID(s[:16])
	if err != nil {
		return err
	}
	var seq [4]byte
	if err := parseHex(seq[:], s[17:], "pack number"); err != nil {
		return err
	}
	*p = PackID{Run: run, Seq: binary.BigEndian.Uint32(seq[:])}
	return nil
}

func parseHex(dst []byte, s, what string) error {
	if len(s) != 2*len(dst) {
		return fmt.Errorf("%s %q: want %d hex digits", what, s, 2*len(dst))
	}
	if _, err := hex.Decode(dst, []byte(s)); err != nil {
		return fmt.Errorf("%s %q: %w", what, s, err)
	}
	return nil
}
