package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"
)

// place is where a frame is kept, in all generations of its pack.
type place struct {
	kind  Kind
	pack  PackID
	index uint32
}

// Damage is what scrubs and restores have found to be bad and nothing has
// mended since.
type Damage struct {
	places map[place]Checksum
	sums   map[Checksum][]Ref // data chunks only
	tables []packName         // of which a header or a table is bad, or a copy missing
	lost   map[place]bool     // map nodes without a good copy, as far as DamagedLevels has found
}

// damageNote is an object in damaged/.
type damageNote struct {
	Kind       Kind      `json:"kind"`
	Ref        Ref       `json:"ref"`
	Folder     string    `json:"folder,omitempty"` // where the table is bad, not a frame
	Generation uint32    `json:"generation"`       // of the pack, when it was found
	Name       Name      `json:"name"`             // whose level was being read
	Level      string    `json:"level"`
	Cause      string    `json:"cause"`
	Time       time.Time `json:"time"`
}

func damagePrefix(kind Kind, id PackID) string {
	return damagedPrefix + strings.TrimSuffix(foldersOf(kind)[0], "/") + "." + strings.ReplaceAll(id.String(), "/", ".") + "."
}

func damageKey(kind Kind, ref Ref, generation uint32) string {
	return damagePrefix(kind, ref.Pack) + strconv.FormatUint(uint64(generation), 10) + "." + strconv.FormatUint(uint64(ref.Index), 10)
}

// Damage reads what is known to be bad.
func (r *Repository) Damage(ctx context.Context) (*Damage, error) {
	d := &Damage{places: map[place]Checksum{}, sums: map[Checksum][]Ref{}, lost: map[place]bool{}}
	keys, err := r.list(ctx, damagedPrefix)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		var n damageNote
		err := r.getObject(ctx, key, "damaged", &n)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errBadObject) {
			continue // mended meanwhile; or a note that is itself damaged: the next scrub notes it again
		}
		if err != nil {
			return nil, err
		}
		if n.Folder != "" {
			d.addTable(packName{n.Folder, n.Ref.Pack})
			continue
		}
		d.add(n.Kind, n.Ref)
	}
	return d, nil
}

func (d *Damage) add(kind Kind, ref Ref) {
	at := place{kind, ref.Pack, ref.Index}
	if _, ok := d.places[at]; !ok && kind == KindData {
		d.sums[ref.Sum] = append(d.sums[ref.Sum], ref)
	}
	d.places[at] = ref.Sum
}

func (d *Damage) addTable(name packName) {
	if !slices.Contains(d.tables, name) {
		d.tables = append(d.tables, name)
	}
}

// Any reports whether any chunk or map node is known to be bad.
func (d *Damage) Any() bool { return len(d.places) > 0 }

// Has reports whether what a reference names is known to be bad.
func (d *Damage) Has(kind Kind, ref Ref) bool {
	if len(d.places) == 0 {
		return false
	}
	_, ok := d.places[place{kind, ref.Pack, ref.Index}]
	return ok
}

// mapNodes returns the map nodes of which a copy is bad, by pack.
func (d *Damage) mapNodes() map[PackID][]Ref {
	packs := map[PackID][]Ref{}
	for at, sum := range d.places {
		if at.kind == KindMap {
			packs[at.pack] = append(packs[at.pack], Ref{Sum: sum, Pack: at.pack, Index: at.index})
		}
	}
	for _, refs := range packs {
		slices.SortFunc(refs, compareRefs)
	}
	return packs
}

// Of returns the references of bad chunks whose bytes had this checksum.
func (d *Damage) Of(sum Checksum) []Ref {
	if len(d.sums) == 0 {
		return nil
	}
	return d.sums[sum]
}

// NoteDamage writes down that what a reference names cannot be read, so that
// the next backup reads its place again.
func (r *Repository) NoteDamage(ctx context.Context, l *Level, bad *ChunkError) error {
	if err := r.writable(ctx); err != nil {
		return err
	}
	generation := r.generation(foldersOf(bad.Kind)[0], bad.Ref.Pack)
	n := damageNote{
		Kind: bad.Kind, Ref: bad.Ref, Generation: generation, Name: l.Name, Level: l.Number.String(),
		Cause: bad.Cause.Error(), Time: time.Now().UTC(),
	}
	err := r.putObject(ctx, damageKey(bad.Kind, bad.Ref, generation), "damaged", &n)
	if errors.Is(err, fs.ErrExist) {
		return nil // known already
	}
	return err
}

// MarshalJSON names the kind by its folder.
func (k Kind) MarshalJSON() ([]byte, error) {
	return json.Marshal(strings.TrimSuffix(foldersOf(k)[0], "/"))
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (k *Kind) UnmarshalJSON(p []byte) error {
	var s string
	if err := json.Unmarshal(p, &s); err != nil {
		return err
	}
	switch s + "/" {
	case dataPrefix:
		*k = KindData
	case mapsPrefix:
		*k = KindMap
	default:
		return fmt.Errorf("pack kind %q", s)
	}
	return nil
}
