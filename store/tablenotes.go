package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A note on a table says that a pack's object in one folder is to be written
// anew from what can be found of it: its header or its table is bad, or it is
// missing and has a twin.
func tableNotePrefix(name packName) string {
	kind := kindOf(name.folder)
	return damagePrefix(kind, name.id) + "table-" + strings.TrimSuffix(name.folder, "/") + "."
}

// kindOf is the kind of the packs in a folder.
func kindOf(folder string) Kind {
	if folder == dataPrefix {
		return KindData
	}
	return KindMap
}

// noteTable notes that an object's table is bad.
func (r *Repository) noteTable(ctx context.Context, o *PackObject, cause error) error {
	name := o.name()
	n := damageNote{
		Kind: o.kind(), Ref: Ref{Pack: o.ID}, Folder: name.folder, Generation: o.Generation,
		Cause: cause.Error(), Time: time.Now().UTC(),
	}
	err := r.putObject(ctx, tableNotePrefix(name)+"g"+strconv.FormatUint(uint64(o.Generation), 10), "damaged", &n)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// noteBadTable notes that a data pack's newest generation is bad, if it is so
// when it is read once more. Of a pack that is gone there is nothing to mend.
func (r *Repository) noteBadTable(ctx context.Context, id PackID) error {
	generations, err := r.listGenerations(ctx, dataPrefix, id)
	if err != nil || len(generations) == 0 {
		return err
	}
	_, cause := r.readTable(ctx, id)
	if cause == nil || context.Cause(ctx) != nil || errors.Is(cause, fs.ErrNotExist) {
		return context.Cause(ctx)
	}
	return r.asNoted(r.noteTable(ctx, &PackObject{ID: id, Generation: generations[0]}, cause))
}

// flushTables writes packs anew whose tables are bad, and deletes the notes on
// those that are sound again, or gone.
func (m *mender) flushTables(ctx context.Context, d *Damage, condemned *condemned) error {
	for _, name := range d.tables {
		kind := kindOf(name.folder)
		if kind == KindData && condemned.has(name.id) {
			continue
		}
		n, _, err := m.repo.mendPack(ctx, kind, name.folder, name.id, nil, m.mayDelete)
		if err != nil {
			return fmt.Errorf("mend pack %s: %w", name.id, err)
		}
		if n > 0 {
			m.stored += n
			m.mended++
		}
		keys, err := m.repo.copies(ctx, kind, name.folder, name.id)
		if err != nil {
			return err
		}
		if len(keys) > 0 {
			sound, err := m.repo.soundTable(ctx, kind, name.folder, name.id)
			if err != nil {
				return err
			}
			if sound == nil {
				continue
			}
		}
		if err := m.repo.clearTableNotes(ctx, name, m.mayDelete); err != nil {
			return err
		}
	}
	return nil
}

func (r *Repository) clearTableNotes(ctx context.Context, name packName, mayDelete func(context.Context) error) error {
	keys, err := r.list(ctx, tableNotePrefix(name))
	if err != nil {
		return err
	}
	return r.deleteAll(ctx, keys, mayDelete)
}

// NoteMissing notes copies of map packs that are missing while their twins are
// there, and returns how many there are.
func (s *Survey) NoteMissing(ctx context.Context) (n int64, err error) {
	s.mu.Lock()
	missing := slices.Clone(s.copies)
	s.mu.Unlock()
	for _, name := range missing {
		o := PackObject{ID: name.id, folder: uint8(slices.Index(packFolders[:], name.folder))}
		here, err := s.repo.listGenerations(ctx, name.folder, name.id)
		if err != nil {
			return n, err
		}
		twins, err := s.repo.copies(ctx, KindMap, name.folder, name.id)
		if err != nil {
			return n, err
		}
		if len(here) > 0 || len(twins) == 0 {
			continue // written, or collected, meanwhile; or lost, which Confirm finds
		}
		n++
		if s.repo.readOnly != nil {
			continue
		}
		if err := s.repo.noteTable(ctx, &o, fmt.Errorf("%w: it is missing", errBadPack)); err != nil {
			return n, err
		}
	}
	return n, nil
}
