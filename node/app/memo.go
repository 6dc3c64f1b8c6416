package app

import (
	"slices"
	"sync"
)

// memo keeps the last results of something that takes long and is much the same
// the next time.
type memo[T any] struct {
	most int // results

	mu   sync.Mutex
	list []memoEntry[T] // guarded by mu; the one that was asked for last comes last
}

type memoEntry[T any] struct {
	key   string
	value T
}

func (m *memo[T]) get(key string) (v T, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.list, func(e memoEntry[T]) bool { return e.key == key })
	if i < 0 {
		return v, false
	}
	e := m.list[i]
	m.list = append(slices.Delete(m.list, i, i+1), e)
	return e.value, true
}

func (m *memo[T]) put(key string, v T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list = slices.DeleteFunc(m.list, func(e memoEntry[T]) bool { return e.key == key })
	if m.list = append(m.list, memoEntry[T]{key, v}); len(m.list) > m.most {
		m.list = slices.Delete(m.list, 0, 1)
	}
}
