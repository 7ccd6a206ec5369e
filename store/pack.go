package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
)

// Kind tells what a pack holds. It decides the folder.
type Kind uint8

// The kinds of packs. Map packs are kept twice.
const (
	KindData Kind = 1
	KindMap  Kind = 2
)

// FrameType tells what a frame of a pack is.
type FrameType uint8

// The frame types. A level record lies in the last map pack of its run.
const (
	FrameChunk FrameType = iota
	FrameNode
	FrameLevel
)

// Sizes of the format, in bytes.
const (
	packHeaderSize  = 72
	entrySize       = 56
	frameHeaderSize = 24

	maxPackEntries = 1 << 20
	maxMetaRaw     = 1 << 20 // a node or a level record
)

const (
	packVersion    = 1
	checksumBLAKE3 = 1
)

var (
	packMagic  = [8]byte{'b', 'a', 'c', 'k', 'y', 'p', 'a', 'k'}
	frameMagic = [4]byte{'b', 'k', 'y', 'f'}
)

// errBadPack is what every decoder of a pack's parts answers with, wrapped.
var errBadPack = errors.New("bad pack")

// packHeader stands at the beginning of every pack.
type packHeader struct {
	Kind       Kind
	ChunkSize  int64
	Fanout     int
	Repository RepositoryID
	Pack       PackID
	Generation uint32
	Entries    uint32
	Length     int64  // of the whole pack
	TableCRC   uint32 // CRC-32C of the table
	Absent     uint32 // entries without a frame
}

func (h *packHeader) Validate() error {
	switch {
	case h.Kind != KindData && h.Kind != KindMap:
		return fmt.Errorf("%w: kind %d", errBadPack, h.Kind)
	case !validChunkSize(h.ChunkSize):
		return fmt.Errorf("%w: chunk size %d", errBadPack, h.ChunkSize)
	case !validFanout(h.Fanout):
		return fmt.Errorf("%w: fan-out %d", errBadPack, h.Fanout)
	case h.Entries > maxPackEntries:
		return fmt.Errorf("%w: %d entries", errBadPack, h.Entries)
	case h.Absent > h.Entries:
		return fmt.Errorf("%w: %d of %d entries absent", errBadPack, h.Absent, h.Entries)
	case h.Length < packHeaderSize+int64(h.Entries)*entrySize:
		return fmt.Errorf("%w: length %d does not hold %d entries", errBadPack, h.Length, h.Entries)
	}
	return nil
}

func (h *packHeader) appendTo(p []byte) []byte {
	start := len(p)
	p = append(p, packMagic[:]...)
	p = binary.LittleEndian.AppendUint16(p, packVersion)
	p = append(p, byte(h.Kind), byte(bits.TrailingZeros64(uint64(h.ChunkSize))))
	p = binary.LittleEndian.AppendUint16(p, uint16(h.Fanout))
	p = binary.LittleEndian.AppendUint16(p, checksumBLAKE3)
	p = append(p, h.Repository[:]...)
	p = binary.LittleEndian.AppendUint64(p, uint64(h.Pack.Run))
	p = binary.LittleEndian.AppendUint32(p, h.Pack.Seq)
	p = binary.LittleEndian.AppendUint32(p, h.Generation)
	p = binary.LittleEndian.AppendUint32(p, h.Entries)
	p = binary.LittleEndian.AppendUint64(p, uint64(h.Length))
	p = binary.LittleEndian.AppendUint32(p, h.TableCRC)
	p = binary.LittleEndian.AppendUint32(p, h.Absent)
	return binary.LittleEndian.AppendUint32(p, crc32.Checksum(p[start:], castagnoli))
}

func decodePackHeader(p []byte) (h packHeader, err error) {
	if len(p) < packHeaderSize {
		return h, fmt.Errorf("%w: %d bytes are no header", errBadPack, len(p))
	}
	p = p[:packHeaderSize]
	if [8]byte(p) != packMagic {
		return h, fmt.Errorf("%w: no magic", errBadPack)
	}
	if crc := binary.LittleEndian.Uint32(p[68:]); crc != crc32.Checksum(p[:68], castagnoli) {
		return h, fmt.Errorf("%w: header fails its CRC", errBadPack)
	}
	if v := binary.LittleEndian.Uint16(p[8:]); v != packVersion {
		return h, &FormatError{Needs: fmt.Sprintf("pack version %d", v)}
	}
	if a := binary.LittleEndian.Uint16(p[14:]); a != checksumBLAKE3 {
		return h, &FormatError{Needs: fmt.Sprintf("checksum algorithm %d", a)}
	}
	h = packHeader{
		Kind:       Kind(p[10]),
		ChunkSize:  1 << (p[11] & 63),
		Fanout:     int(binary.LittleEndian.Uint16(p[12:])),
		Repository: RepositoryID(p[16:32]),
		Pack:       PackID{Run: RunID(binary.LittleEndian.Uint64(p[32:])), Seq: binary.LittleEndian.Uint32(p[40:])},
		Generation: binary.LittleEndian.Uint32(p[44:]),
		Entries:    binary.LittleEndian.Uint32(p[48:]),
		Length:     int64(binary.LittleEndian.Uint64(p[52:])),
		TableCRC:   binary.LittleEndian.Uint32(p[60:]),
		Absent:     binary.LittleEndian.Uint32(p[64:]),
	}
	return h, h.Validate()
}

// entry is one place of a pack's table.
type entry struct {
	Sum    Checksum
	Offset int64 // of the frame's header, from the pack's start
	Stored int   // bytes behind the frame's header
	Raw    int
	Codec  Codec
	Type   FrameType
	CRC    uint32
}

func (e *entry) end() int64 { return e.Offset + frameHeaderSize + int64(e.Stored) }

func (e *entry) appendTo(p []byte) []byte {
	p = append(p, e.Sum[:]...)
	p = binary.LittleEndian.AppendUint64(p, uint64(e.Offset))
	p = binary.LittleEndian.AppendUint32(p, uint32(e.Stored))
	p = binary.LittleEndian.AppendUint32(p, uint32(e.Raw))
	p = append(p, byte(e.Codec), byte(e.Type), 0, 0)
	return binary.LittleEndian.AppendUint32(p, e.CRC)
}

// decodeEntry decodes an entry; maxRaw bounds what it may name.
func decodeEntry(p []byte, maxRaw int) (e entry, err error) {
	if len(p) < entrySize {
		return e, fmt.Errorf("%w: %d bytes are no entry", errBadPack, len(p))
	}
	e = entry{
		Sum:    Checksum(p[:32]),
		Offset: int64(binary.LittleEndian.Uint64(p[32:])),
		Stored: int(binary.LittleEndian.Uint32(p[40:])),
		Raw:    int(binary.LittleEndian.Uint32(p[44:])),
		Codec:  Codec(p[48]),
		Type:   FrameType(p[49]),
		CRC:    binary.LittleEndian.Uint32(p[52:]),
	}
	if e.Codec == Absent {
		return e, nil
	}
	switch {
	case e.Raw > maxRaw || e.Stored > maxRaw+maxRaw/8+64:
		return e, fmt.Errorf("%w: entry of %d raw and %d stored bytes", errBadPack, e.Raw, e.Stored)
	case e.Offset < packHeaderSize || e.Offset > 1<<40:
		return e, fmt.Errorf("%w: entry at offset %d", errBadPack, e.Offset)
	}
	return e, nil
}

// maxRawOf bounds the raw length of a frame by the kind of its pack.
func maxRawOf(kind Kind, chunkSize int64) int {
	if kind == KindMap {
		return maxMetaRaw
	}
	return int(chunkSize)
}

func appendFrameHeader(p []byte, index uint32, e *entry) []byte {
	p = append(p, frameMagic[:]...)
	p = binary.LittleEndian.AppendUint32(p, index)
	p = binary.LittleEndian.AppendUint32(p, uint32(e.Stored))
	p = binary.LittleEndian.AppendUint32(p, uint32(e.Raw))
	p = append(p, byte(e.Codec), byte(e.Type), 0, 0)
	return binary.LittleEndian.AppendUint32(p, e.CRC)
}

// decodeFrameHeader is the inverse of appendFrameHeader; the entry's checksum
// and offset stay unknown.
func decodeFrameHeader(p []byte, maxRaw int) (index uint32, e entry, err error) {
	if len(p) < frameHeaderSize || [4]byte(p) != frameMagic {
		return 0, e, fmt.Errorf("%w: no frame", errBadPack)
	}
	index = binary.LittleEndian.Uint32(p[4:])
	e = entry{
		Stored: int(binary.LittleEndian.Uint32(p[8:])),
		Raw:    int(binary.LittleEndian.Uint32(p[12:])),
		Codec:  Codec(p[16]),
		Type:   FrameType(p[17]),
		CRC:    binary.LittleEndian.Uint32(p[20:]),
	}
	if e.Raw > maxRaw || e.Stored > maxRaw+maxRaw/8+64 || index >= maxPackEntries {
		return 0, e, fmt.Errorf("%w: frame %d of %d raw and %d stored bytes", errBadPack, index, e.Raw, e.Stored)
	}
	return index, e, nil
}

// checkFrame is frameAt for those who do not compare the checksum of the raw
// bytes: it compares the CRC of the stored ones.
func checkFrame(p []byte, index uint32, e *entry, maxRaw int) ([]byte, error) {
	stored, err := frameAt(p, index, e, maxRaw)
	if err == nil && crc32.Checksum(stored, castagnoli) != e.CRC {
		return nil, fmt.Errorf("%w: frame fails its CRC", errBadPack)
	}
	return stored, err
}

// frameAt takes a frame with its header as it was read and returns its stored
// bytes, or says how it contradicts the table's entry.
func frameAt(p []byte, index uint32, e *entry, maxRaw int) ([]byte, error) {
	i, f, err := decodeFrameHeader(p, maxRaw)
	if err != nil {
		return nil, err
	}
	f.Sum, f.Offset = e.Sum, e.Offset
	if i != index || f != *e || p[18]|p[19] != 0 {
		return nil, fmt.Errorf("%w: frame and table disagree", errBadPack)
	}
	stored := p[frameHeaderSize:]
	if len(stored) < e.Stored {
		return nil, fmt.Errorf("%w: frame is cut", errBadPack)
	}
	return stored[:e.Stored], nil
}

// decodeTable decodes a whole table and holds it against the header's CRC.
func decodeTable(h *packHeader, p []byte) ([]entry, error) {
	if len(p) != int(h.Entries)*entrySize {
		return nil, fmt.Errorf("%w: table of %d bytes for %d entries", errBadPack, len(p), h.Entries)
	}
	if crc32.Checksum(p, castagnoli) != h.TableCRC {
		return nil, fmt.Errorf("%w: table fails its CRC", errBadPack)
	}
	maxRaw := maxRawOf(h.Kind, h.ChunkSize)
	entries := make([]entry, h.Entries)
	for i := range entries {
		e, err := decodeEntry(p[i*entrySize:], maxRaw)
		if err != nil {
			return nil, err
		}
		if e.Codec != Absent && e.end() > h.Length {
			return nil, fmt.Errorf("%w: entry %d ends behind the pack", errBadPack, i)
		}
		entries[i] = e
	}
	return entries, nil
}
