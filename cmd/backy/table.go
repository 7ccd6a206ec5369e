package main

import (
	"strings"
	"unicode/utf8"
)

// column is one of a table: its title, and whether it holds numbers.
type column struct {
	title  string
	number bool
}

// table aligns rows of cells under titles, one space apart. Where width is not
// 0, the last column is cut in its middle to fit. A cell is one line, whatever is
// in it.
func table(columns []column, rows [][]string, width int) string {
	rows = shownCells(rows)
	titles := make([]string, len(columns))
	widths := make([]int, len(columns))
	for i, c := range columns {
		titles[i] = c.title
		widths[i] = utf8.RuneCountInString(c.title)
		for _, r := range rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(r[i]))
		}
	}
	room := 0
	if last := len(columns) - 1; width > 0 {
		room = width
		for _, w := range widths[:last] {
			room -= w + 1
		}
		room = max(room, len(columns[last].title))
	}
	var b strings.Builder
	for _, r := range append([][]string{titles}, rows...) {
		for i, cell := range r {
			padding := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			switch {
			case i == len(r)-1:
				b.WriteString(shorten(cell, room) + "\n")
			case columns[i].number:
				b.WriteString(padding + cell + " ")
			default:
				b.WriteString(cell + padding + " ")
			}
		}
	}
	return b.String()
}

func shownCells(rows [][]string) [][]string {
	list := make([][]string, len(rows))
	for i, r := range rows {
		for _, cell := range r {
			list[i] = append(list[i], printable(cell))
		}
	}
	return list
}

// shorten cuts a text in its middle to at most n runes; 0 leaves it alone. A name's
// end says as much as its beginning.
func shorten(s string, n int) string {
	runes := []rune(s)
	if n == 0 || len(runes) <= n {
		return s
	}
	head := (n - 1) / 2
	tail := n - 1 - head
	return string(runes[:head]) + "…" + string(runes[len(runes)-tail:])
}
