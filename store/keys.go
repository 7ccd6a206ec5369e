package store

import (
	"fmt"
	"strconv"
	"strings"
)

// The folders of a repository.
const (
	configKey     = "backy.json"
	dataPrefix    = "data/"
	mapsPrefix    = "maps/"
	twinsPrefix   = "maps2/"
	levelsPrefix  = "levels/"
	workPrefix    = "work/"
	damagedPrefix = "damaged/"
	marksPrefix   = "marks/"
)

// ConfigName is the file that makes a folder a repository.
const ConfigName = configKey

// Folders are the names of a repository's folders.
func Folders() []string {
	prefixes := []string{dataPrefix, mapsPrefix, twinsPrefix, levelsPrefix, workPrefix, damagedPrefix, marksPrefix}
	for i := range prefixes {
		prefixes[i] = strings.TrimSuffix(prefixes[i], "/")
	}
	return prefixes
}

// packPrefix is the common beginning of the keys of a pack's generations.
// Twins are the second copies of map packs.
func packPrefix(folder string, id PackID) string {
	return folder + id.String()
}

// packKey is the key of one generation of a pack. Generation 0 has no suffix.
func packKey(folder string, id PackID, generation uint32) string {
	if generation == 0 {
		return packPrefix(folder, id)
	}
	return packPrefix(folder, id) + "." + strconv.FormatUint(uint64(generation), 10)
}

// parsePackKey is the inverse of packKey.
func parsePackKey(key string) (folder string, id PackID, generation uint32, err error) {
	folder, rest, ok := strings.Cut(key, "/")
	folder += "/"
	if !ok || (folder != dataPrefix && folder != mapsPrefix && folder != twinsPrefix) {
		return "", id, 0, fmt.Errorf("key %q: not a pack's", key)
	}
	base, suffix, hasGen := strings.Cut(rest, ".")
	if err := id.UnmarshalText([]byte(base)); err != nil {
		return "", id, 0, fmt.Errorf("key %q: %w", key, err)
	}
	if hasGen {
		g, err := strconv.ParseUint(suffix, 10, 32)
		if err != nil || g == 0 || strconv.FormatUint(g, 10) != suffix {
			return "", id, 0, fmt.Errorf("key %q: bad generation", key)
		}
		generation = uint32(g)
	}
	if packKey(folder, id, generation) != key {
		return "", id, 0, fmt.Errorf("key %q: not a pack's as backy writes it", key)
	}
	return folder, id, generation, nil
}

func levelPrefix(name Name) string { return levelsPrefix + name.escape() + "/" }

func levelKey(name Name, n LevelNumber) string { return levelPrefix(name) + n.String() + ".json" }

func removedKey(name Name, n LevelNumber) string { return levelPrefix(name) + n.String() + ".removed" }

// parseLevelKey tells what a key below levels/ stands for.
func parseLevelKey(key string) (name Name, n LevelNumber, removed bool, err error) {
	segment, file, ok := strings.Cut(strings.TrimPrefix(key, levelsPrefix), "/")
	if !ok {
		return "", 0, false, fmt.Errorf("key %q: not a level's", key)
	}
	if name, err = unescapeName(segment); err != nil {
		return "", 0, false, fmt.Errorf("key %q: %w", key, err)
	}
	base, isJSON := strings.CutSuffix(file, ".json")
	if !isJSON {
		base, removed = strings.CutSuffix(file, ".removed")
	}
	if !isJSON && !removed {
		return "", 0, false, fmt.Errorf("key %q: not a level's", key)
	}
	if n, err = ParseLevelNumber(base); err != nil {
		return "", 0, false, fmt.Errorf("key %q: %w", key, err)
	}
	return name, n, removed, nil
}
