package main

import (
	"fmt"
	"strings"

	"backy/engine/batch"
)

// manyTable tells what became of each image of a run.
func manyTable(results []batch.Result, width int) string {
	if len(results) == 0 {
		return ""
	}
	columns := []column{{"RESULT", false}, {"LEVEL", true}, {"READ", true}, {"ADDED", true}, {"SECONDS", true}, {"IMAGE", false}}
	var rows [][]string
	for _, r := range results {
		level, read, added, seconds := "-", "-", "-", "-"
		if r.Level != 0 {
			level = r.Level.String()
		}
		if r.New != nil {
			read, added = shortBytes(r.Read), shortBytes(r.Added)
		}
		if r.Seconds > 0 {
			seconds = fmt.Sprintf("%.1f", r.Seconds)
		}
		result := string(r.Result)
		if len(r.Unclear) > 0 {
			result += ", kept all"
		}
		rows = append(rows, []string{result, level, read, added, seconds, strings.TrimPrefix(r.Image, rbdScheme)})
	}
	return table(columns, rows, width)
}

// resultWords are what can become of an image, in the order in which it is told.
var resultWords = []batch.Word{
	batch.Done, batch.Prepared, batch.Young, batch.Elsewhere, batch.Excluded, batch.Gone, batch.Failed, batch.Ended,
}

// manySummary counts what became of the images.
func manySummary(results []batch.Result) string {
	var read, added int64
	counts := map[batch.Word]int{}
	for _, r := range results {
		counts[r.Result]++
		read, added = read+r.Read, added+r.Added
	}
	var parts []string
	for _, w := range resultWords {
		if n := counts[w]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, w))
		}
	}
	unclear := 0
	for _, r := range results {
		unclear += min(1, len(r.Unclear))
	}
	if unclear > 0 {
		parts = append(parts, fmt.Sprintf("%d with metadata that are not understood, of which nothing was forgotten", unclear))
	}
	text := count(int64(len(results)), "image")
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	return fmt.Sprintf("%s; read %s, added %s", text, bytesText(read), bytesText(added))
}
