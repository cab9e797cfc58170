# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""Rows by key: the compiled part of `so.IdMap`.

a) A hash table with open addressing finds a key. A slot has a word and a value. The word of an integer is the integer,
   and that of a text is a hash of its UTF-8 bytes. The value is the row of the key, or minus the number of a candidate,
   or 0 in an empty slot. The bytes of all texts stand in one arena.
b) Keys come in blocks. First the slots of a block are prefetched, and for texts what the slots point to. Then the keys
   are looked up one after the other.
c) A call first finds or adds all its keys, and then counts them. If memory is short or a key is bad, the first part is
   undone. So a call happens whole or not at all.
d) A row that is free has the count 0. The field `last` of a free row has the next free row. Free candidates are the
   same. While a call adds keys, a new row has the count 0, or minus the number of the candidate that it was.
"""

cimport numpy as cnp
from cpython.pythread cimport (
    NOWAIT_LOCK,
    WAIT_LOCK,
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_release_lock,
    PyThread_type_lock,
)
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from sparseopt._kernels.rowplan cimport number, prefetch_read

import numpy as np

cnp.import_array()

include "huge.pxi"

cdef extern from "Python.h":
    # These take a borrowed object, and the caller holds the GIL.
    bint PyUnicode_Check(PyObject*) noexcept nogil
    bint PyUnicode_IS_ASCII(PyObject*) noexcept nogil
    int PyUnicode_KIND(PyObject*) noexcept nogil
    const void* PyUnicode_DATA(PyObject*) noexcept nogil
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject*) noexcept nogil
    object PyUnicode_DecodeUTF8(const char*, Py_ssize_t, const char*)
    bint PyLong_CheckExact(object) noexcept
    long long PyLong_AsLongLongAndOverflow(object, int*) except? -1
    PyObject** items "PySequence_Fast_ITEMS"(object) noexcept

cdef enum:
    BLOCK = 128             # keys that are prefetched together
    AHEAD = 16              # keys from the prefetch of a row's counts to the use
    LEAST_SLOT_BITS = 6
    FINE = -1
    NO_MEMORY = -2


cdef struct Slot:
    uint64_t word
    int64_t value


cdef struct Entry:
    uint64_t word
    int64_t count
    int64_t last            # the call that last had the key


cdef struct Span:           # of the arena
    int64_t start
    int64_t length


cdef struct List:           # of rows, or of candidates; numbers begin at 1
    Entry* entries
    Span* spans             # NULL for integers
    int64_t n               # the next new number
    int64_t capacity
    int64_t free            # the first free number, or 0


cdef struct Text:
    const char* at
    int64_t length


cdef struct Map:
    bint text
    int64_t admit
    int64_t clock           # calls that have counted
    int64_t n_keys          # keys with a row
    Slot* slots
    int64_t n_slots         # a power of two
    int shift               # 64 - log2(n_slots)
    int64_t n_used
    List rows
    List candidates
    char* arena
    int64_t arena_used
    int64_t arena_capacity
    int64_t garbage         # bytes of the arena that belong to no key


cdef struct Keys:           # where the keys of a call come from
    const int64_t* integers
    PyObject** objects      # strs; the caller holds the GIL
    const uint32_t* letters     # of a NumPy array of str, `width` for each key
    int64_t width
    const void* offsets     # of UTF-8 bytes
    bint offsets_wide
    const char* data
    int64_t data_length


# Hashing

cdef inline uint64_t mixed(uint64_t x) noexcept nogil:
    """The last step of SplitMix64, which is variant 13 of D. Stafford, "Better bit mixing", 2011."""
    x = (x ^ (x >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * <uint64_t>0x94D049BB133111EB
    return x ^ (x >> 31)


cdef inline uint64_t bytes_at(const char* at, int64_t n) noexcept nogil:
    cdef uint64_t word = 0
    memcpy(&word, at, n)
    return word


cdef inline uint64_t short_word(const char* at, int64_t n) noexcept nogil:
    """Up to 8 bytes as a number; different bytes of the same length give different numbers."""
    cdef const uint8_t* b = <const uint8_t*>at
    if n >= 4:
        return bytes_at(at, 4) << 32 | bytes_at(at + n - 4, 4)
    return <uint64_t>b[0] << 16 | <uint64_t>b[n >> 1] << 8 | b[n - 1] if n else 0


cdef inline uint64_t word_of(const Text* text) noexcept nogil:
    cdef const char* at = text.at
    cdef int64_t left = text.length
    cdef uint64_t h = <uint64_t>left * <uint64_t>0x9E3779B97F4A7C15
    while left > 8:
        h = (h ^ bytes_at(at, 8)) * <uint64_t>0xBF58476D1CE4E5B9
        h ^= h >> 32
        at += 8
        left -= 8
    h = (h ^ short_word(at, left)) * <uint64_t>0x94D049BB133111EB
    return h ^ (h >> 32)


cdef inline int64_t home(const Map* m, uint64_t word) noexcept nogil:
    return <int64_t>(mixed(word) >> m.shift)


# Slots

cdef inline Span* span_of(const Map* m, int64_t value) noexcept nogil:
    return &m.rows.spans[value] if value > 0 else &m.candidates.spans[-value]


cdef inline bint same(const Map* m, int64_t value, const Text* text) noexcept nogil:
    cdef const Span* span = span_of(m, value)
    return span.length == text.length and memcmp(m.arena + span.start, text.at, text.length) == 0


cdef inline int64_t find(const Map* m, bint text_map, int64_t slot, uint64_t word, const Text* text) noexcept nogil:
    """The slot of a key, or the empty slot where it belongs. `slot` is the key's home."""
    # `text_map` is a constant of each call, so that integers have a compiled loop of their own.
    cdef const Slot* slots = m.slots
    cdef int64_t mask = m.n_slots - 1
    while slots[slot].value != 0 and not (slots[slot].word == word and (
            not text_map or same(m, slots[slot].value, text))):
        slot = (slot + 1) & mask
    return slot


cdef inline int64_t slot_with(const Map* m, uint64_t word, int64_t value) noexcept nogil:
    cdef int64_t slot = home(m, word)
    while m.slots[slot].value != value:
        slot = (slot + 1) & (m.n_slots - 1)
    return slot


cdef void empty_slot(Map* m, int64_t hole) noexcept nogil:
    """Empty a slot, and move later keys so that each is found from its home on."""
    cdef int64_t mask = m.n_slots - 1, slot = hole
    while True:
        slot = (slot + 1) & mask
        if m.slots[slot].value == 0:
            break
        if ((slot - home(m, m.slots[slot].word)) & mask) >= ((slot - hole) & mask):
            m.slots[hole] = m.slots[slot]
            hole = slot
    m.slots[hole].value = 0
    m.n_used -= 1


# Memory. Each function returns False, and changes nothing, if there is none.

cdef bint room_for_slots(Map* m, int64_t n) noexcept nogil:
    """At most every second slot may be used."""
    cdef int shift = m.shift
    cdef int64_t i, slot, old_n = m.n_slots
    cdef Slot* old = m.slots
    cdef Slot* new
    while shift > 16 and (<int64_t>1 << (64 - shift)) < 2 * n:
        shift -= 1
    if shift == m.shift and old:
        return True
    new = <Slot*>calloc(<size_t>1 << (64 - shift), sizeof(Slot))
    if not new:
        return False
    ask_for_huge_pages(<char*>new, (<size_t>1 << (64 - shift)) * sizeof(Slot))
    m.slots, m.shift, m.n_slots = new, shift, <int64_t>1 << (64 - shift)
    for i in range(old_n):
        if old[i].value != 0:
            slot = home(m, old[i].word)
            while new[slot].value != 0:
                slot = (slot + 1) & (m.n_slots - 1)
            new[slot] = old[i]
    free(old)
    return True


cdef bint room_for_entries(List* x, int64_t n, bint text) noexcept nogil:
    cdef int64_t capacity = max(n, x.capacity + x.capacity // 2)
    cdef void* moved
    if n <= x.capacity:
        return True
    moved = realloc(x.entries, capacity * sizeof(Entry))
    if not moved:
        return False
    x.entries = <Entry*>moved
    ask_for_huge_pages(<char*>moved, capacity * sizeof(Entry))
    if text:
        moved = realloc(x.spans, capacity * sizeof(Span))
        if not moved:
            return False
        x.spans = <Span*>moved
        ask_for_huge_pages(<char*>moved, capacity * sizeof(Span))
    x.capacity = capacity
    return True


cdef bint room_for_bytes(Map* m, int64_t n) noexcept nogil:
    cdef int64_t capacity = max(n, m.arena_capacity + m.arena_capacity // 2)
    cdef void* moved
    if n <= m.arena_capacity:
        return True
    moved = realloc(m.arena, capacity)
    if not moved:
        return False
    m.arena, m.arena_capacity = <char*>moved, capacity
    return True


cdef bint room_for_keys(Map* m, const Text* texts, int n) noexcept nogil:
    """Room for n more keys."""
    cdef int64_t n_bytes = m.arena_used
    cdef int i
    if m.text:
        for i in range(n):
            n_bytes += texts[i].length
    return (room_for_slots(m, m.n_used + n) and room_for_bytes(m, n_bytes)
            and room_for_entries(&m.rows, m.rows.n + n, m.text)
            and (m.admit == 1 or room_for_entries(&m.candidates, m.candidates.n + n, m.text)))


cdef int64_t moved_texts(const List* x, const char* old, char* new, int64_t used) noexcept nogil:
    """Copy the bytes of all keys of a list. Returns the number of bytes in use."""
    cdef int64_t i
    for i in range(1, x.n):
        if x.entries[i].count != 0:
            memcpy(new + used, old + x.spans[i].start, x.spans[i].length)
            x.spans[i].start = used
            used += x.spans[i].length
    return used


cdef void drop_garbage(Map* m) noexcept nogil:
    """Write the arena anew if most of it belongs to no key, and if there is memory for that."""
    cdef int64_t capacity = m.arena_used - m.garbage + 1
    cdef char* new
    if m.garbage < 65536 or 2 * m.garbage < m.arena_used:
        return
    new = <char*>malloc(capacity)
    if not new:
        return
    m.arena_used = moved_texts(&m.candidates, m.arena, new, moved_texts(&m.rows, m.arena, new, 0))
    free(m.arena)
    m.arena, m.arena_capacity, m.garbage = new, capacity, 0


# Finding and adding

cdef inline int64_t new_number(List* x, uint64_t word, Span span, int64_t count) noexcept nogil:
    cdef int64_t i = x.free
    if i:
        x.free = x.entries[i].last
    else:
        i = x.n
        x.n += 1
        x.entries[i].last = 0
    x.entries[i].word, x.entries[i].count = word, count
    if x.spans:
        x.spans[i] = span
    return i


cdef inline void give_back(List* x, int64_t i) noexcept nogil:
    x.entries[i].count, x.entries[i].last, x.free = 0, x.free, i


cdef inline int64_t add_key(Map* m, int64_t slot, uint64_t word, const Text* text) noexcept nogil:
    """A key that has no row comes once more. Returns its row, or minus the number of its candidate."""
    cdef int64_t value = m.slots[slot].value
    cdef Span span
    span.start, span.length = 0, 0
    if value == 0:
        m.n_used += 1
        m.slots[slot].word = word
        if m.text:
            span.start, span.length = m.arena_used, text.length
            memcpy(m.arena + span.start, text.at, span.length)
            m.arena_used += span.length
        if m.admit == 1:
            value = new_number(&m.rows, word, span, 0)
        else:
            value = -new_number(&m.candidates, word, span, 1)
    elif m.candidates.entries[-value].count + 1 < m.admit:
        m.candidates.entries[-value].count += 1
    else:
        if m.text:
            span = m.candidates.spans[-value]
        value = new_number(&m.rows, word, span, value)
    m.slots[slot].value = value
    return value


cdef inline void look_up(Map* m, bint text_map, const uint64_t* words, const Text* texts, int n, bint add,
                         int64_t* out) noexcept nogil:
    """A block of keys. With `add` there must be room."""
    cdef int64_t homes[BLOCK]
    cdef int64_t slot
    cdef int i
    for i in range(n):
        homes[i] = home(m, words[i])
        prefetch_read(&m.slots[homes[i]])
    if text_map:
        for i in range(n):
            slot = homes[i]
            while m.slots[slot].value != 0 and m.slots[slot].word != words[i]:
                slot = (slot + 1) & (m.n_slots - 1)
            homes[i], out[i] = slot, m.slots[slot].value
            if out[i]:
                prefetch_read(span_of(m, out[i]))
        for i in range(n):
            if out[i]:
                prefetch_read(m.arena + span_of(m, out[i]).start)
    for i in range(n):
        slot = find(m, text_map, homes[i], words[i], &texts[i])
        out[i] = m.slots[slot].value
        if out[i] <= 0:
            out[i] = add_key(m, slot, words[i], &texts[i]) if add else 0


cdef void count_all(Map* m, int64_t* out, int64_t n) noexcept nogil:
    """The second part of a call that adds: count the keys. Nothing here can fail."""
    cdef int64_t i, c
    cdef Entry* e
    m.clock += 1
    for i in range(n):
        if i + AHEAD < n and out[i + AHEAD] > 0:
            prefetch_read(&m.rows.entries[out[i + AHEAD]])
        if out[i] < 0:
            out[i] = 0
            continue
        e = &m.rows.entries[out[i]]
        if e.count <= 0:                # a new row
            m.n_keys += 1
            c = -e.count
            if c:
                e.count = m.candidates.entries[c].count
                give_back(&m.candidates, c)
        e.count += 1
        e.last = m.clock


cdef void undo_row(Map* m, int64_t row) noexcept nogil:
    cdef Entry* e = &m.rows.entries[row]
    cdef int64_t slot = slot_with(m, e.word, row)
    if e.count:
        m.slots[slot].value = e.count
    else:
        empty_slot(m, slot)
    e.count = 0


cdef void undo(Map* m, const List* rows_before, int64_t arena_before, const int64_t* out, int64_t n) noexcept nogil:
    """Take the first part of a call back. `out` has what n keys gave, as before they were counted."""
    cdef int64_t i, row = rows_before.free
    cdef Entry* e
    while row != m.rows.free:
        undo_row(m, row)
        row = m.rows.entries[row].last
    for row in range(rows_before.n, m.rows.n):
        undo_row(m, row)
    m.rows.n, m.rows.free = rows_before.n, rows_before.free
    for i in range(n):
        if out[i] < 0:
            e = &m.candidates.entries[-out[i]]
            e.count -= 1
            if e.count == 0:
                empty_slot(m, slot_with(m, e.word, out[i]))
                give_back(&m.candidates, -out[i])
    m.arena_used = arena_before


# Reading keys

cdef inline int64_t encoded(char* out, uint32_t letter) noexcept nogil:
    """Write a letter as UTF-8. Returns the number of bytes, or 0 for a surrogate and for what is no letter."""
    if letter < 0x80:
        out[0] = <char>letter
        return 1
    if letter < 0x800:
        out[0], out[1] = <char>(0xC0 | letter >> 6), <char>(0x80 | (letter & 0x3F))
        return 2
    if letter < 0x10000:
        if 0xD800 <= letter < 0xE000:
            return 0
        out[0], out[1] = <char>(0xE0 | letter >> 12), <char>(0x80 | (letter >> 6 & 0x3F))
        out[2] = <char>(0x80 | (letter & 0x3F))
        return 3
    if letter > 0x10FFFF:
        return 0
    out[0], out[1] = <char>(0xF0 | letter >> 18), <char>(0x80 | (letter >> 12 & 0x3F))
    out[2], out[3] = <char>(0x80 | (letter >> 6 & 0x3F)), <char>(0x80 | (letter & 0x3F))
    return 4


cdef inline int64_t letters_to_utf8(char* out, const void* letters, int kind, int64_t n) noexcept nogil:
    """Returns the number of bytes, or -1 for letters that UTF-8 cannot hold."""
    cdef int64_t i, length = 0, step
    cdef uint32_t letter, all_ = 0
    if kind == 4:
        for i in range(n):              # letters are mostly ASCII, and this loop vectorises
            letter = (<const uint32_t*>letters)[i]
            all_ |= letter
            out[i] = <char>letter
        if all_ < 0x80:
            return n
    for i in range(n):
        letter = ((<const uint8_t*>letters)[i] if kind == 1 else (<const uint16_t*>letters)[i] if kind == 2
                  else (<const uint32_t*>letters)[i])
        step = encoded(out + length, letter)
        if step == 0:
            return -1
        length += step
    return length


cdef bint is_utf8(const Text* text) noexcept nogil:
    cdef const uint8_t* at = <const uint8_t*>text.at
    cdef const uint8_t* end = at + text.length
    cdef uint32_t letter, least
    cdef int more
    while at < end:
        if end - at >= 8 and bytes_at(<const char*>at, 8) & <uint64_t>0x8080808080808080 == 0:
            at += 8
            continue
        letter = at[0]
        at += 1
        if letter < 0x80:
            continue
        if letter < 0xC2 or letter > 0xF4:
            return False
        more, least = (1, 0x80) if letter < 0xE0 else (2, 0x800) if letter < 0xF0 else (3, 0x10000)
        letter &= 0x3F >> more
        if end - at < more:
            return False
        while more:
            if at[0] & 0xC0 != 0x80:
                return False
            letter = letter << 6 | (at[0] & 0x3F)
            at += 1
            more -= 1
        if letter < least or letter > 0x10FFFF or 0xD800 <= letter < 0xE000:
            return False
    return True


cdef struct Scratch:        # for keys that are not UTF-8 bytes yet
    char* at
    int64_t capacity


cdef bint room_for_scratch(Scratch* scratch, int64_t n) noexcept nogil:
    cdef void* moved
    if n <= scratch.capacity:
        return True
    moved = realloc(scratch.at, n)
    if not moved:
        return False
    scratch.at, scratch.capacity = <char*>moved, n
    return True


cdef int64_t read_objects(const Keys* keys, int64_t first, int n, Scratch* scratch, Text* texts) noexcept nogil:
    cdef PyObject* one
    cdef int64_t need = 0
    cdef char* out
    cdef int i
    for i in range(n):
        one = keys.objects[first + i]
        if not PyUnicode_Check(one):
            return first + i
        need += 0 if PyUnicode_IS_ASCII(one) else 4 * PyUnicode_GET_LENGTH(one)
    if not room_for_scratch(scratch, need):
        return NO_MEMORY
    out = scratch.at
    for i in range(n):
        one = keys.objects[first + i]
        texts[i].at, texts[i].length = <const char*>PyUnicode_DATA(one), PyUnicode_GET_LENGTH(one)
        if not PyUnicode_IS_ASCII(one):
            texts[i].length = letters_to_utf8(out, PyUnicode_DATA(one), PyUnicode_KIND(one), texts[i].length)
            if texts[i].length < 0:
                return first + i
            texts[i].at = out
            out += texts[i].length
    return FINE


cdef int64_t read_letters(const Keys* keys, int64_t first, int n, Scratch* scratch, Text* texts) noexcept nogil:
    cdef const uint32_t* letters
    cdef char* out
    cdef int64_t length
    cdef int i
    if not room_for_scratch(scratch, 4 * n * keys.width):
        return NO_MEMORY
    out = scratch.at
    for i in range(n):
        letters = keys.letters + (first + i) * keys.width
        length = keys.width
        while length and letters[length - 1] == 0:          # NumPy fills up with zeros
            length -= 1
        texts[i].at, texts[i].length = out, letters_to_utf8(out, letters, 4, length)
        if texts[i].length < 0:
            return first + i
        out += texts[i].length
    return FINE


cdef int64_t read_bytes(const Keys* keys, int64_t first, int n, Text* texts) noexcept nogil:
    cdef int64_t start, stop
    cdef int i
    for i in range(n):
        start = number(keys.offsets, keys.offsets_wide, first + i)
        stop = number(keys.offsets, keys.offsets_wide, first + i + 1)
        if not 0 <= start <= stop <= keys.data_length:
            return first + i
        texts[i].at, texts[i].length = keys.data + start, stop - start
        if not is_utf8(&texts[i]):
            return first + i
    return FINE


cdef int64_t run_blocks(Map* m, const Keys* keys, int64_t n, bint add, Scratch* scratch, int64_t* out,
                        int64_t* done) noexcept nogil:
    """Look keys up. Returns FINE, NO_MEMORY or the position of a bad key. The first `done` keys have been looked up."""
    cdef uint64_t words[BLOCK]
    cdef Text texts[BLOCK]
    cdef int64_t status = FINE
    cdef int i, each
    done[0] = 0
    while done[0] < n:
        each = <int>min(BLOCK, n - done[0])
        if keys.integers:
            memcpy(words, keys.integers + done[0], each * sizeof(int64_t))
        elif keys.objects:
            status = read_objects(keys, done[0], each, scratch, texts)
        elif keys.letters:
            status = read_letters(keys, done[0], each, scratch, texts)
        else:
            status = read_bytes(keys, done[0], each, texts)
        if status == FINE and add and not room_for_keys(m, texts, each):
            status = NO_MEMORY
        if status != FINE:
            return status
        if m.text:
            for i in range(each):
                words[i] = word_of(&texts[i])
            look_up(m, True, words, texts, each, add, out + done[0])
        else:
            look_up(m, False, words, texts, each, add, out + done[0])
        done[0] += each
    return FINE


cdef bint begin_map(Map* m, bint text, int64_t admit) noexcept nogil:
    m.text, m.admit, m.shift, m.rows.n, m.candidates.n = text, admit, 64 - LEAST_SLOT_BITS, 1, 1
    return room_for_slots(m, 0) and room_for_bytes(m, 64)


cdef void end_map(Map* m) noexcept nogil:
    free(m.slots)
    free(m.rows.entries)
    free(m.rows.spans)
    free(m.candidates.entries)
    free(m.candidates.spans)
    free(m.arena)


cdef inline bint has_key(const List* x, int64_t i) noexcept nogil:
    return 0 < i < x.n and x.entries[i].count > 0


cdef dict empty_arrays(bint text, int64_t n, int64_t n_bytes):
    arrays = {name: np.empty(n, np.int64) for name in ("counts", "last", "ends" if text else "keys")}
    if text:
        arrays["texts"] = np.empty(n_bytes, np.uint8)
    return arrays


cdef int64_t used_bytes(const List* x) noexcept nogil:
    cdef int64_t i, n_bytes = 0
    for i in range(1, x.n):
        if x.entries[i].count != 0:
            n_bytes += x.spans[i].length
    return n_bytes


cdef int64_t* integers_in(arrays, name) noexcept:
    return <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>arrays[name]) if name in arrays else NULL


cdef void copy_list(const Map* m, const List* x, dict arrays) noexcept:
    """Copy a list to arrays: see `Ids.parts`."""
    cdef int64_t* counts = integers_in(arrays, "counts")
    cdef int64_t* last = integers_in(arrays, "last")
    cdef int64_t* keys = integers_in(arrays, "keys")
    cdef int64_t* ends = integers_in(arrays, "ends")
    cdef char* texts = <char*>integers_in(arrays, "texts")
    cdef int64_t i, end = 0
    for i in range(1, x.n):
        counts[i - 1] = x.entries[i].count
        if last:
            last[i - 1] = x.entries[i].last
        if keys:
            keys[i - 1] = <int64_t>x.entries[i].word if x.entries[i].count else 0
        else:
            if x.entries[i].count:
                memcpy(texts + end, m.arena + x.spans[i].start, x.spans[i].length)
                end += x.spans[i].length
            ends[i - 1] = end


cdef int64_t fill_list(Map* m, List* x, dict arrays, int sign) noexcept:
    """The other way. Returns FINE, NO_MEMORY, or the position of a wrong entry. Free numbers are not yet a chain."""
    cdef const int64_t* counts = integers_in(arrays, "counts")
    cdef const int64_t* last = integers_in(arrays, "last")
    cdef const int64_t* keys = integers_in(arrays, "keys")
    cdef const int64_t* ends = integers_in(arrays, "ends")
    cdef const char* texts = <const char*>integers_in(arrays, "texts")
    cdef int64_t n = len(arrays["counts"]), n_bytes = len(arrays["texts"]) if m.text else 0
    cdef int64_t i, slot, start = 0
    cdef Entry* e
    cdef Text text
    text.at, text.length = NULL, 0
    if not (room_for_slots(m, m.n_used + n) and room_for_entries(x, n + 1, m.text)
            and room_for_bytes(m, m.arena_used + n_bytes)):
        return NO_MEMORY
    x.n = n + 1
    for i in range(n):
        e = &x.entries[i + 1]
        e.count, e.last = counts[i], last[i] if last else 0
        if m.text:
            if not start <= ends[i] <= n_bytes:
                return i
            text.at, text.length = texts + start, ends[i] - start
            x.spans[i + 1].start, x.spans[i + 1].length = m.arena_used, text.length
            memcpy(m.arena + m.arena_used, text.at, text.length)
            m.arena_used += text.length
            e.word, start = word_of(&text), ends[i]
            if not is_utf8(&text) or (e.count == 0 and text.length):
                return i
        else:
            e.word = <uint64_t>keys[i]
        if e.count < 0 or (e.count > 0 and not (0 < e.last <= m.clock if last else e.count < m.admit)):
            return i
    for i in range(n):
        if i + AHEAD < n:
            prefetch_read(&m.slots[home(m, x.entries[i + 1 + AHEAD].word)])
        e = &x.entries[i + 1]
        if e.count == 0:
            continue
        if m.text:
            text.at, text.length = m.arena + x.spans[i + 1].start, x.spans[i + 1].length
        slot = find(m, m.text, home(m, e.word), e.word, &text)
        if m.slots[slot].value != 0:
            return i                    # the key came before
        m.slots[slot].word, m.slots[slot].value = e.word, sign * (i + 1)
        m.n_used += 1
        m.n_keys += sign > 0
    return FINE if start == n_bytes else n


cdef bint chain_is_right(List* x, int64_t first) noexcept nogil:
    """Whether the free numbers are a chain from `first` on."""
    cdef int64_t i, left = 0
    for i in range(1, x.n):
        left += x.entries[i].count == 0
    x.free = first
    while left and 0 < first < x.n and x.entries[first].count == 0:
        first = x.entries[first].last
        left -= 1
    return first == 0 and left == 0


def restored(bint text, int64_t admit, int64_t clock, int64_t free_row, dict rows, dict candidates):
    """A map of what `Ids.parts` returned. Raises ValueError if these parts are of no map."""
    cdef Ids new = Ids(text, admit)
    cdef int64_t status, i
    cdef Map* m = &new.map
    m.clock = clock
    status = fill_list(m, &m.rows, rows, 1)
    if status != FINE:
        refuse(status, "row")
    if not chain_is_right(&m.rows, free_row):
        raise ValueError("its free rows do not fit its counts")
    status = fill_list(m, &m.candidates, candidates, -1)
    if status != FINE:
        refuse(status, "candidate")
    for i in range(1, m.candidates.n):
        if m.candidates.entries[i].count == 0:
            give_back(&m.candidates, i)
    return new


cdef refuse(int64_t status, str what):
    if status == NO_MEMORY:
        raise MemoryError("there is no memory for so many keys")
    raise ValueError(f"{what} {status + 1} has a key, a count or a last use that no map has")


cdef class Ids:
    """A map from keys to rows. Methods that take keys return -1, or the position of the first bad key."""

    cdef Map map
    cdef PyThread_type_lock lock
    cdef readonly int64_t version       # the number of changes

    def __cinit__(self, bint text, int64_t admit):
        self.lock = PyThread_allocate_lock()
        if not self.lock or not begin_map(&self.map, text, admit):
            raise MemoryError

    def __dealloc__(self):
        end_map(&self.map)
        if self.lock:
            PyThread_free_lock(self.lock)

    # No Python code runs between these two: no signal handler and no finalizer can wait for a lock of its own thread.
    cdef void acquire(self) noexcept:
        if not PyThread_acquire_lock(self.lock, NOWAIT_LOCK):
            with nogil:
                PyThread_acquire_lock(self.lock, WAIT_LOCK)

    cdef void release(self) noexcept:
        PyThread_release_lock(self.lock)

    @property
    def text(self):
        return bool(self.map.text)

    @property
    def admit(self):
        return self.map.admit

    @property
    def n_keys(self):
        return self.map.n_keys

    @property
    def n_rows(self):
        return self.map.rows.n

    cdef run(self, const Keys* keys, int64_t n, bint add, cnp.ndarray out):
        cdef int64_t* o = <int64_t*>cnp.PyArray_DATA(out)
        cdef Map* m = &self.map
        cdef List before
        cdef Scratch scratch
        cdef int64_t status, done = 0, arena_before
        scratch.at, scratch.capacity = NULL, 0
        self.acquire()
        before, arena_before = m.rows, m.arena_used
        if keys.objects:
            status = run_blocks(m, keys, n, add, &scratch, o, &done)
        else:
            with nogil:
                status = run_blocks(m, keys, n, add, &scratch, o, &done)
        if add:
            with nogil:
                if status == FINE:
                    count_all(m, o, n)
                else:
                    undo(m, &before, arena_before, o, done)
            self.version += 1
        self.release()
        free(scratch.at)
        if status == NO_MEMORY:
            raise MemoryError("there is no memory for so many keys")
        return status

    def rows_of_integers(self, cnp.ndarray integers, bint add, cnp.ndarray out):
        """Set out[i] to the row of the i-th key of an int64 array."""
        cdef Keys keys
        memset(&keys, 0, sizeof(Keys))
        keys.integers = <const int64_t*>cnp.PyArray_DATA(integers)
        return self.run(&keys, out.size, add, out)

    def rows_of_objects(self, tuple texts, bint add, cnp.ndarray out):
        """Set out[i] to the row of the i-th str."""
        cdef Keys keys
        memset(&keys, 0, sizeof(Keys))
        keys.objects = items(texts)
        return self.run(&keys, out.size, add, out)

    def rows_of_letters(self, cnp.ndarray letters, bint add, cnp.ndarray out):
        """Set out[i] to the row of the text in the i-th row of an array of uint32, filled up with zeros."""
        cdef Keys keys
        memset(&keys, 0, sizeof(Keys))
        keys.letters, keys.width = <const uint32_t*>cnp.PyArray_DATA(letters), letters.shape[1]
        return self.run(&keys, out.size, add, out)

    def rows_of_bytes(self, cnp.ndarray offsets, cnp.ndarray data, bint add, cnp.ndarray out):
        """Set out[i] to the row of the text in the bytes from offsets[i] to offsets[i + 1] - 1."""
        cdef Keys keys
        memset(&keys, 0, sizeof(Keys))
        keys.offsets, keys.offsets_wide = cnp.PyArray_DATA(offsets), offsets.itemsize == 8
        keys.data, keys.data_length = <const char*>cnp.PyArray_DATA(data), data.shape[0]
        return self.run(&keys, out.size, add, out)

    @property
    def freed(self):
        """The free row that the next new key gets, or 0."""
        return self.map.rows.free

    @freed.setter
    def freed(self, choice):
        """Free rows. `choice` is an array of different rows with keys, and the version that they were chosen at.

        This is a setter so that `atomic.adopt` can call it between its own writes. Raises RuntimeError, and changes
        nothing, if the map has changed since the choice.
        """
        rows, version = choice
        cdef cnp.ndarray numbers = rows
        cdef const int64_t* r = <const int64_t*>cnp.PyArray_DATA(numbers)
        cdef int64_t i, chosen_at = version
        cdef bint changed
        cdef Map* m = &self.map
        self.acquire()
        changed = self.version != chosen_at
        if not changed:
            for i in range(numbers.shape[0] - 1, -1, -1):       # the first comes to the head of the free rows
                empty_slot(m, slot_with(m, m.rows.entries[r[i]].word, r[i]))
                if m.text:
                    m.garbage += m.rows.spans[r[i]].length
                    m.rows.spans[r[i]].length = 0
                give_back(&m.rows, r[i])
                m.n_keys -= 1
            drop_garbage(m)
            self.version += 1
        self.release()
        if changed:
            raise RuntimeError("another call has changed this map while its rows were being freed")

    def uses(self):
        """The version, and copies of the counts and the last uses from row 1 on. A free row has the count 0."""
        cdef int64_t version = -1, i
        cdef List* x = &self.map.rows
        cdef int64_t* c
        cdef int64_t* l
        while version != self.version:      # nothing is allocated while the lock is held
            version = self.version
            counts, last = np.empty(x.n - 1, np.int64), np.empty(x.n - 1, np.int64)
            c, l = <int64_t*>cnp.PyArray_DATA(counts), <int64_t*>cnp.PyArray_DATA(last)
            self.acquire()
            if version == self.version:
                for i in range(1, x.n):
                    c[i - 1], l[i - 1] = x.entries[i].count, x.entries[i].last
            self.release()
        return version, counts, last

    def parts(self):
        """Copies of all that the map consists of: the clock, the next free row, and arrays of rows and of candidates.

        The arrays are "counts", "last" for rows, and "keys", or "texts" with "ends". They begin with row 1. For a free
        row, "last" has the next free row.
        """
        cdef int64_t version = -1, clock = 0, free_row = 0, n = 0, n_bytes = 0, n_candidates = 0, candidate_bytes = 0
        cdef Map* m = &self.map
        while version != self.version:      # nothing is allocated while the lock is held
            self.acquire()
            version, n, n_candidates = self.version, m.rows.n - 1, m.candidates.n - 1
            if m.text:
                n_bytes, candidate_bytes = used_bytes(&m.rows), used_bytes(&m.candidates)
            self.release()
            rows, candidates = empty_arrays(m.text, n, n_bytes), empty_arrays(m.text, n_candidates, candidate_bytes)
            del candidates["last"]
            self.acquire()
            if version == self.version:
                clock, free_row = m.clock, m.rows.free
                copy_list(m, &m.rows, rows)
                copy_list(m, &m.candidates, candidates)
            self.release()
        return clock, free_row, rows, candidates

    def keys_of(self, cnp.ndarray rows, list out):
        """Set out[i] to the key of the i-th row. Returns -1, or the position of a row without a key."""
        cdef const int64_t* r = <const int64_t*>cnp.PyArray_DATA(rows)
        cdef List* x = &self.map.rows
        cdef int64_t i
        self.acquire()
        try:
            for i in range(rows.shape[0]):
                if not has_key(x, r[i]):
                    return i
                if self.map.text:
                    out[i] = PyUnicode_DecodeUTF8(self.map.arena + x.spans[r[i]].start, x.spans[r[i]].length, NULL)
                else:
                    out[i] = <int64_t>x.entries[r[i]].word
        finally:
            self.release()
        return FINE

    def integers_of(self, cnp.ndarray rows, cnp.ndarray out):
        """Set out[i] to the key of the i-th row. Returns -1, or the position of a row without a key."""
        cdef const int64_t* r = <const int64_t*>cnp.PyArray_DATA(rows)
        cdef int64_t* o = <int64_t*>cnp.PyArray_DATA(out)
        cdef List* x = &self.map.rows
        cdef int64_t i, bad = FINE
        self.acquire()
        for i in range(rows.shape[0]):
            if not has_key(x, r[i]):
                bad = i
                break
            o[i] = <int64_t>x.entries[r[i]].word
        self.release()
        return bad


def read_list(tuple keys, cnp.ndarray out):
    """Copy integers to an int64 array. Returns -1, or the position of the first that is none, or too large."""
    cdef int64_t* o = <int64_t*>cnp.PyArray_DATA(out)
    cdef Py_ssize_t i
    cdef int too_large = 0
    for i in range(len(keys)):
        one = keys[i]
        if not PyLong_CheckExact(one):
            if not isinstance(one, np.integer):
                return i
            one = int(one)
        o[i] = PyLong_AsLongLongAndOverflow(one, &too_large)
        if too_large:
            return i
    return FINE
