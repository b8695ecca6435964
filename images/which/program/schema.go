package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strconv"
	"strings"
)

// schema is the part of JSON Schema that pydantic writes for the catalogue (Catalogue.model_json_schema).
type schema struct {
	Defs     map[string]*schema `json:"$defs"`
	Ref      string             `json:"$ref"`
	Type     string             `json:"type"`
	AnyOf    []*schema          `json:"anyOf"`
	Enum     []string           `json:"enum"`
	Const    *string            `json:"const"`
	Pattern  string             `json:"pattern"`
	Minimum  *int64             `json:"minimum"`
	Maximum  *int64             `json:"maximum"`
	MinItems int                `json:"minItems"`
	Items    *schema            `json:"items"`
	Required []string           `json:"required"`
	// Of an object whose keys are known, and of one whose keys have a form.
	Properties        map[string]*schema `json:"properties"`
	PatternProperties map[string]*schema `json:"patternProperties"`
	// What is not used, so that a word which is not known here is an error and no hole.
	Title                string          `json:"title"`
	Description          string          `json:"description"`
	Default              json.RawMessage `json:"default"`
	AdditionalProperties *bool           `json:"additionalProperties"`

	pattern *regexp.Regexp
	keys    []*regexp.Regexp
	values  []*schema
}

func parseSchema(raw []byte) (*schema, error) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	var root schema
	if err := decoder.Decode(&root); err != nil {
		return nil, fmt.Errorf("the catalogue's schema: %w", err)
	}
	if err := root.prepare(root.Defs, 0); err != nil {
		return nil, err
	}
	for _, one := range root.Defs {
		if err := one.prepare(root.Defs, 0); err != nil {
			return nil, err
		}
	}
	return &root, nil
}

func (s *schema) prepare(defs map[string]*schema, depth int) error {
	if depth > 20 {
		return fmt.Errorf("the catalogue's schema is nested too deep")
	}
	var err error
	if s.Pattern != "" {
		if s.pattern, err = regexp.Compile(s.Pattern); err != nil {
			return err
		}
	}
	if s.Ref != "" {
		name := strings.TrimPrefix(s.Ref, "#/$defs/")
		if defs[name] == nil {
			return fmt.Errorf("the catalogue's schema has no %s", s.Ref)
		}
		s.AnyOf = []*schema{defs[name]}
		return nil
	}
	for text, below := range s.PatternProperties {
		key, err := regexp.Compile(text)
		if err != nil {
			return err
		}
		s.keys, s.values = append(s.keys, key), append(s.values, below)
	}
	below := append(append([]*schema{}, s.AnyOf...), s.values...)
	for _, one := range s.Properties {
		below = append(below, one)
	}
	if s.Items != nil {
		below = append(below, s.Items)
	}
	for _, one := range below {
		if err := one.prepare(defs, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// check says where a value is not what the schema wants, and why; "" where it is.
func (s *schema) check(value any, place string) (string, string) {
	if len(s.AnyOf) > 0 {
		var at, why string
		for _, one := range s.AnyOf {
			if at, why = one.check(value, place); why == "" {
				return "", ""
			}
			if value == nil {
				continue
			}
			if one.Type != "null" {
				return at, why
			}
		}
		return at, why
	}
	switch s.Type {
	case "null":
		if value != nil {
			return place, "should be null"
		}
	case "string":
		text, good := value.(string)
		switch {
		case !good:
			return place, "should be a string"
		case s.pattern != nil && !s.pattern.MatchString(text):
			return place, "should match " + s.Pattern
		case s.Enum != nil && !contains(s.Enum, text):
			return place, "should be one of " + strings.Join(s.Enum, ", ")
		case s.Const != nil && *s.Const != text:
			return place, "should be " + *s.Const
		}
	case "integer":
		number, good := value.(json.Number)
		whole, err := strconv.ParseInt(string(number), 10, 64)
		switch {
		case !good || err != nil:
			return place, "should be an integer"
		case s.Minimum != nil && whole < *s.Minimum:
			return place, fmt.Sprintf("should be at least %d", *s.Minimum)
		case s.Maximum != nil && whole > *s.Maximum:
			return place, fmt.Sprintf("should be at most %d", *s.Maximum)
		}
	case "array":
		list, good := value.([]any)
		if !good {
			return place, "should be a list"
		}
		if len(list) < s.MinItems {
			return place, fmt.Sprintf("should have %d items or more", s.MinItems)
		}
		for at, one := range list {
			if s.Items != nil {
				if where, why := s.Items.check(one, below(place, strconv.Itoa(at))); why != "" {
					return where, why
				}
			}
		}
	case "object":
		return s.checkObject(value, place)
	default:
		return place, "has no type that is known here"
	}
	return "", ""
}

func (s *schema) checkObject(value any, place string) (string, string) {
	object, good := value.(map[string]any)
	if !good {
		return place, "should be an object"
	}
	for _, name := range s.Required {
		if _, there := object[name]; !there {
			return below(place, name), "is missing"
		}
	}
	names := make([]string, 0, len(object))
	for name := range object {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		one := s.Properties[name]
		for at, key := range s.keys {
			if one == nil && key.MatchString(name) {
				one = s.values[at]
			}
		}
		if one == nil {
			return below(place, printable(name, 80)), "is not expected"
		}
		if where, why := one.check(object[name], below(place, printable(name, 80))); why != "" {
			return where, why
		}
	}
	return "", ""
}

func below(place, name string) string {
	if place == "" {
		return name
	}
	return place + "." + name
}

const mostDepth = 64

// parseJSON reads a document with nothing behind it, its numbers as they stand there. What is nested too deep is refused,
// and so is a name that stands twice in one object, for readers differ in which of the two counts.
func parseJSON(raw []byte) (any, error) {
	if err := checkNames(json.NewDecoder(bytes.NewReader(raw))); err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, fmt.Errorf("something stands behind it")
	}
	return value, nil
}

func checkNames(decoder *json.Decoder) error {
	type level struct {
		names map[string]bool // nil in a list
		value bool            // whether a value comes next, not a name
	}
	decoder.UseNumber()
	var levels []*level
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var top *level
		if len(levels) > 0 {
			top = levels[len(levels)-1]
		}
		if token == json.Delim('}') || token == json.Delim(']') {
			levels = levels[:len(levels)-1]
			continue
		}
		if top != nil && top.names != nil {
			if name, isName := token.(string); isName && !top.value {
				if top.names[name] {
					return fmt.Errorf("the name %q stands there twice", printable(name, 80))
				}
				top.names[name], top.value = true, true
				continue
			}
			top.value = false
		}
		switch token {
		case json.Delim('{'):
			levels = append(levels, &level{names: map[string]bool{}})
		case json.Delim('['):
			levels = append(levels, &level{})
		}
		if len(levels) > mostDepth {
			return fmt.Errorf("it is nested too deep")
		}
	}
}
