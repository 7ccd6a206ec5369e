//go:build cgo

package main

import (
	"fmt"
	"image/color"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// curve is how a cost grows.
type curve struct {
	title  string
	name   string // of its file
	x      string
	y      []string // units of the series
	points []point
	log    bool // the x axis
}

type point struct {
	label string
	x     float64
	y     []float64
}

func (c *curve) markdown() string {
	text := fmt.Sprintf("## %s\n\n| %s |", c.title, c.x)
	rule := "\n|---|"
	for _, y := range c.y {
		text += " " + y + " |"
		rule += "--:|"
	}
	text += rule + "\n"
	for _, p := range c.points {
		text += "| " + p.label + " |"
		for _, v := range p.y {
			text += fmt.Sprintf(" %.4g |", v)
		}
		text += "\n"
	}
	return text
}

// draw writes the plots and returns their paths.
func (r *report) draw(folder string) (paths []string, err error) {
	if len(r.rows) > 0 {
		path := filepath.Join(folder, "bench.svg")
		if err := r.drawRows(path); err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	for _, c := range r.curves {
		path := filepath.Join(folder, c.name+".svg")
		if err := c.draw(path); err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}

var colours = []color.Color{
	color.RGBA{0x1b, 0x6c, 0xa8, 255},
	color.RGBA{0xd9, 0x5f, 0x02, 255},
	color.RGBA{0x1b, 0x9e, 0x77, 255},
	color.RGBA{0x75, 0x70, 0xb3, 255},
	color.RGBA{0xe7, 0x29, 0x8a, 255},
	color.RGBA{0x99, 0x99, 0x99, 255},
}

// drawRows draws the seconds of each work as dots, one colour a tool.
func (r *report) drawRows(path string) error {
	p := plot.New()
	p.Title.Text = "Seconds, the medians (logarithmic)"
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Legend.Top = true
	var works, names []string
	for _, row := range r.rows {
		works = append(works, row.work)
		for _, name := range row.order {
			if !slices.Contains(names, name) && toolNamed(name).scripts[prepare] != "" {
				names = append(names, name)
			}
		}
	}
	for i, name := range names {
		var dots plotter.XYs
		for j, row := range r.rows {
			if list := row.samples[name]; len(list) > 0 {
				dots = append(dots, plotter.XY{X: float64(j) + (float64(i)-float64(len(names)-1)/2)/10, Y: median(list).Seconds})
			}
		}
		scatter, err := plotter.NewScatter(dots)
		if err != nil {
			return err
		}
		scatter.Color, scatter.Radius, scatter.Shape = colours[i%len(colours)], vg.Points(5), plotutil.Shape(i)
		p.Add(scatter)
		p.Legend.Add(name, scatter)
	}
	p.Add(plotter.NewGrid())
	p.NominalX(works...)
	// Room for the outer names, and on the right for the legend.
	p.X.Min, p.X.Max = -0.5, float64(len(works))+0.5
	p.Y.Min, p.Y.Max = p.Y.Min/1.5, p.Y.Max*1.5
	return p.Save(vg.Length(len(works)+1)*vg.Points(140), vg.Points(360), path)
}

// draw draws the series, each relative to its first point: what matters is how
// they grow.
func (c *curve) draw(path string) error {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.title, c.x, "relative to the first"
	p.Legend.Top, p.Legend.Left = true, true
	if c.log {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	p.Y.Min = 0
	for i, y := range c.y {
		xys := make(plotter.XYs, len(c.points))
		for j, pt := range c.points {
			xys[j].X = pt.x
			if c.points[0].y[i] != 0 {
				xys[j].Y = pt.y[i] / c.points[0].y[i]
			}
		}
		line, dots, err := plotter.NewLinePoints(xys)
		if err != nil {
			return err
		}
		line.Color, dots.Color, dots.Shape = colours[i%len(colours)], colours[i%len(colours)], plotutil.Shape(i)
		p.Add(line, dots)
		p.Legend.Add(y, line, dots)
	}
	return p.Save(vg.Points(480), vg.Points(320), path)
}
