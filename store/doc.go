// Package store is how a repository keeps backups: chunks in packs, the map
// from positions to chunks, levels, the claims of those who write, and the
// collection of what nothing reaches. Below it lie the backends (dir, mem). It
// knows nothing of sources and targets.
//
// # Objects
//
// Every object is created exclusively, whole and durable, and never changed:
// what looks like a change is a new object. Names in keys are escaped to one
// segment.
//
//	backy.json                        format, repository id, chunk size, fan-out
//	reserve.json                      room for a gc on a full disk: see gcrounds.go
//	data/<run>/<seq>[.<gen>]          packs of chunks, about 32 MiB
//	maps/<run>/<seq>[.<gen>]          packs of map nodes, about 2 MiB
//	maps2/<run>/<seq>[.<gen>]         the same again
//	levels/<name>/<n>.json            a level, or a tombstone: this run may not commit
//	levels/<name>/<n>.removed         level n, of the run it names, is gone for every reader
//	work/claim.<name>.<n>             a backup is at work, and level n will be its
//	work/beat.<run>.<k>               its work moved on
//	work/lease.<run>[.<k>]            a level is being read, and still is
//	work/gc.<run> …                   a gc at work: see gcobjects.go
//	damaged/<kind>.<run>.<seq>.<gen>.<index>   what cannot be read
//	damaged/<kind>.<run>.<seq>.table-<folder>.g<gen>   a pack's object to be written anew
//	marks/differs.<name>.<n>          no diff from levels up to n is to be trusted
//	marks/protected.<name>.<n>.<run>  level n of that run may not be removed: see protect.go
//	marks/checked.<run>.<i>           which packs scrubs have checked: see scrubmarks.go
//	marks/scrubbed.<name>.<n>-<run> … and which levels they found well: see scrubbed.go
//
// A run is 16 hex digits: 34 bits of seconds since 1970, 30 random bits.
//
// # JSON objects
//
//	{"type":"level","blake3":"<64 hex digits>","body":{…}}
//
// The checksum is BLAKE3-256 over the body's bytes as they stand there.
//
// # Packs
//
// All numbers are little-endian.
//
//	header, 72 bytes
//	   0  8  magic "backypak"
//	   8  2  version, 1
//	  10  1  kind: 1 chunks, 2 map nodes
//	  11  1  log2 of the chunk size
//	  12  2  fan-out
//	  14  2  checksum: 1 BLAKE3-256
//	  16 16  repository id
//	  32  8  run
//	  40  4  seq
//	  44  4  generation
//	  48  4  number of entries
//	  52  8  length of the pack
//	  60  4  CRC-32C of the table
//	  64  4  number of entries that are absent
//	  68  4  CRC-32C of the header so far
//	table, 56 bytes an entry
//	   0 32  checksum of the raw bytes
//	  32  8  offset of the frame from the pack's start
//	  40  4  stored length
//	  44  4  raw length
//	  48  1  codec: 0 absent, 1 raw, 2 zstd (RFC 8878), 3 s2
//	  49  1  type: 0 chunk, 1 map node, 2 level record
//	  50  2  zero
//	  52  4  CRC-32C of the stored bytes
//	frames, 24 bytes and the stored bytes each
//	   0  4  magic "bkyf"
//	   4  4  index in the table
//	   8  4  stored length
//	  12  4  raw length
//	  16  1  codec
//	  17  1  type
//	  18  2  zero
//	  20  4  CRC-32C of the stored bytes
//
// A frame alone says enough to be found and decoded, so a bad table loses
// nothing. A pack is written anew as its next generation, without dead frames
// or with a bad one mended; indices stay, so every reference stays true.
// Frames are copied with their CRC and never given a new one.
//
// # References and maps
//
// A reference is a checksum, a pack (run and seq) and an index in its table. A
// map is a radix tree over the positions of chunks, as high as the number of
// positions needs; a node holds the references of its children that are not
// empty (node.go draws it) and is itself stored like a chunk, so the root's
// checksum vouches for every byte of a level. A chunk's raw bytes may be fewer
// than the chunk size only where the image ends; what is missing is zeros.
//
// # Order
//
// Data before maps before the level; removal goes the other way. Whoever
// commits does so by creating one key that its claim fixed: a level's record,
// or a gc's verdict; before that, and before it deletes what a level may
// reach, it looks that its claim still stands. A tombstone put there first keeps it from committing for
// ever, whatever the clocks say.
package store
