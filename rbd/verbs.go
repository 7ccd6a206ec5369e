package rbd

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"backy/engine"
	"backy/hints"
	"backy/store"
)

// The verbs of the child process, with what they take and give. Those of the
// cluster and of an image are answered at once; a source, a view or a target is
// the one session that a child has at a time, and ends with verbIdle.
const (
	verbConnect = "connect" // Config → fsid; the first
	verbIdle    = "idle"    // ends the session; error: calls were left behind
	verbQuit    = "quit"    // closes the connection

	verbList         = "list"          // PoolSpec → []Spec
	verbHasNamespace = "has namespace" // Spec → bool
	verbHasImage     = "has image"     // Spec → bool
	verbLook         = "look"          // lookArgs → Info
	verbInspect      = "inspect"       // lookArgs → inspection
	verbSpace        = "space"         // ownSnapshot → space
	verbRemoveStray  = "remove stray"  // ownSnapshot
	verbCheckStray   = "check stray"   // ownSnapshot
	verbPrepare      = "prepare"       // prepareArgs
	verbIdentify     = "identify"      // Spec → store.ImageID
	verbAdmit        = "admit"         // admitArgs → string

	verbBegin   = "source begin"   // beginArgs → began
	verbAgain   = "source again"   // reads go to the state opened afresh from now on
	verbExpect  = "source expect"  // → int64
	verbRecheck = "source recheck" //
	verbEnd     = "source end"     // engine.Outcome
	verbUndo    = "source undo"    // undoArgs; in a child that did not begin it

	verbView  = "view"       // Spec → viewed
	verbVouch = "view close" //

	verbTarget  = "target prepare" // targetArgs → bool, whether it reads as zeros
	verbWrite   = "target write"   // piece
	verbZero    = "target zero"    // piece, of any length
	verbFinish  = "target finish"  //
	verbAbort   = "target abort"   //
	verbUnmake  = "target unmake"  // unmakeArgs; in a child that did not make it
	verbStop    = "stop"           // ends the context of the session
	verbRead    = "read"           // piece
	verbMany    = "read many"      // pieces
	verbExtents = "extents"        // which → uint64, a stream
	verbNext    = "next"           // uint64 → extents
	verbDrop    = "drop"           // uint64: the stream is not read to its end
)

// The verbs of the parent, that a child calls while it answers one of its own.
const (
	verbWarn    = "warn"    // string
	verbOver    = "over"    // store.RunID → bool
	verbJudge   = "judge"   // []ownSnapshot → []ownSnapshot, as Judge leaves them
	verbSnap    = "snap"    // Spec: does what is to be done around the snapshot, and calls
	verbTake    = "take"    // the child's again, to take it
	verbCreated = "created" // string: the id of the image that the target has made
)

type admitArgs struct {
	Spec   Spec
	ID     store.ImageID
	Name   store.Name
	Adopt  bool
	Newest document[*store.Level]
}

type viewed struct {
	Size    int64
	Extents bool // it has them
}

type lookArgs struct {
	Spec   Spec
	Prefix string // of the metadata's keys
}

type inspection struct {
	Info Info
	Own  []ownSnapshot
}

type space struct {
	Bytes int64
	OK    bool
}

// ownSnapshot is an OwnSnapshot with what it does not show.
type ownSnapshot struct {
	Shown      OwnSnapshot
	Name, Hash string
}

func sealOwn(o OwnSnapshot) ownSnapshot { return ownSnapshot{o, o.name, o.hash} }

func sealAll(list []OwnSnapshot) (sealed []ownSnapshot) {
	for _, o := range list {
		sealed = append(sealed, sealOwn(o))
	}
	return sealed
}

func openAll(sealed []ownSnapshot) (list []OwnSnapshot) {
	for _, o := range sealed {
		list = append(list, o.open())
	}
	return list
}

func (o ownSnapshot) open() OwnSnapshot {
	o.Shown.name, o.Shown.hash = o.Name, o.Hash
	return o.Shown
}

type prepareArgs struct {
	Spec       Spec
	Repository store.RepositoryID
	Name       store.Name
	MaxAge     time.Duration
	Around     bool // verbSnap is to be called
}

// document goes across as the JSON that a repository keeps it as.
type document[T any] struct{ V T }

// GobEncode implements gob.GobEncoder.
func (d document[T]) GobEncode() ([]byte, error) { return json.Marshal(d.V) }

// GobDecode implements gob.GobDecoder.
func (d *document[T]) GobDecode(p []byte) error { return json.Unmarshal(p, &d.V) }

// beginArgs are a Spec, SourceOptions and an engine.Run.
type beginArgs struct {
	Spec       Spec
	Diff       Diff
	Adopt      bool
	Around     bool
	Repository store.RepositoryID
	Name       store.Name
	Run        store.RunID
	Levels     document[[]store.Level]
	Distrust   store.LevelNumber
	Unfinished bool
}

// began is an engine.State.
type began struct {
	Handle         string // see Source
	Size           int64
	Extents, Doubt bool // it has them
	Origin         document[store.Origin]
	Base           store.LevelNumber // 0: none
	Outside        engine.Outside
	Sample         float64
	SampleMin      int
	Expected       int64
	Expect, Again  bool
}

type undoArgs struct {
	Spec       Spec
	Handle     string
	Repository store.RepositoryID
	Name       store.Name
	Run        store.RunID
}

type targetArgs struct {
	Spec     Spec
	Force    bool
	Metadata Metadata
	Level    document[store.Level]
}

type unmakeArgs struct {
	Spec Spec
	ID   string
}

// piece is a range of an image, and the slot of the memory that has its bytes.
type piece struct {
	Slot        int
	Off, Length int64
}

// pieces are ranges of an image whose bytes lie in a slot one after the other; so
// many are read at once.
type pieces struct {
	Slot, AtOnce int
	List         []piece // without slots of their own
}

// which of the streams of a state.
type which int

const (
	ofExtents which = iota
	ofDoubt
)

// extents are the next of a stream; after the last of them it is dropped.
type extents struct {
	Next []hints.Extent
	Last bool
}

// MarshalBinary implements encoding.BinaryMarshaler: of these there are many.
func (p piece) MarshalBinary() ([]byte, error) {
	return words64(nil, int64(p.Slot), p.Off, p.Length), nil
}

// UnmarshalBinary implements encoding.BinaryUnmarshaler.
func (p *piece) UnmarshalBinary(b []byte) error {
	if len(b) != 24 {
		return fmt.Errorf("a piece of %d bytes", len(b))
	}
	p.Slot, p.Off, p.Length = int(word64(b)), word64(b[8:]), word64(b[16:])
	return nil
}

// MarshalBinary implements encoding.BinaryMarshaler.
func (p pieces) MarshalBinary() ([]byte, error) {
	b := words64(nil, int64(p.Slot), int64(p.AtOnce))
	for _, one := range p.List {
		b = words64(b, one.Off, one.Length)
	}
	return b, nil
}

// UnmarshalBinary implements encoding.BinaryUnmarshaler.
func (p *pieces) UnmarshalBinary(b []byte) error {
	if len(b) < 16 || len(b)%16 != 0 {
		return fmt.Errorf("pieces of %d bytes", len(b))
	}
	p.Slot, p.AtOnce = int(word64(b)), int(word64(b[8:]))
	for b = b[16:]; len(b) > 0; b = b[16:] {
		p.List = append(p.List, piece{Off: word64(b), Length: word64(b[8:])})
	}
	return nil
}

func words64(b []byte, list ...int64) []byte {
	for _, n := range list {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	return b
}

func word64(b []byte) int64 { return int64(binary.LittleEndian.Uint64(b)) }
