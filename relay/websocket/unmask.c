/* The fast case of reading a WebSocket: binary data frames, unmasked in place.
 *
 * This knows nothing but the fast case.  At anything else (text, control frames, reserved bits, a
 * frame that is not masked, a length not in its shortest form, a fragment out of order) it stops in
 * front of the frame and leaves the judgement to relay/websocket/reader.py.  The Python twin of this
 * function, and the meaning of its arguments, is in relay/websocket/unmasking.py; a property test
 * holds the two together.
 *
 * Limited API of Python 3.11: one build serves every later version.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum { BETWEEN_MESSAGES = 0, BETWEEN_FRAGMENTS = 1, IN_FRAGMENT = 2, IN_LAST = 3 };

/* XOR `size` bytes at `from` with the key and put them at `to`, which is `from` or below it.
 *
 * Going upwards, eight bytes are loaded before eight are stored, at or below the place of the load,
 * so what is still to be read is never overwritten, however much the two overlap. */
static void
xor_down(unsigned char *to, const unsigned char *from, size_t size, uint32_t key)
{
    uint64_t wide = ((uint64_t)key << 32) | key;
    size_t at = 0;
    if (to == from) { /* the compiler makes vector instructions of this loop */
        for (; at + 8 <= size; at += 8) {
            uint64_t word;
            memcpy(&word, to + at, 8);
            word ^= wide;
            memcpy(to + at, &word, 8);
        }
    } else {
        for (; at + 8 <= size; at += 8) {
            uint64_t word;
            memcpy(&word, from + at, 8);
            word ^= wide;
            memcpy(to + at, &word, 8);
        }
    }
    unsigned char bytes[8];
    memcpy(bytes, &wide, 8);
    for (; at < size; at++)
        to[at] = from[at] ^ bytes[at & 7];
}

/* The key as it applies `count` bytes later. */
static uint32_t
turned(uint32_t key, uint64_t count)
{
    unsigned char before[4], after[4];
    memcpy(before, &key, 4);
    for (int i = 0; i < 4; i++)
        after[i] = before[(i + count) & 3];
    memcpy(&key, after, 4);
    return key;
}

static PyObject *
unmask(PyObject *module, PyObject *arguments)
{
    Py_buffer view;
    Py_ssize_t position, end, key_size;
    unsigned long long remaining;
    const char *key_bytes;
    int state;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "w*nnKy#i", &view, &position, &end, &remaining, &key_bytes,
                          &key_size, &state))
        return NULL;
    if (position < 0 || end < position || end > view.len || key_size != 4
        || state < BETWEEN_MESSAGES || state > IN_LAST) {
        PyBuffer_Release(&view);
        PyErr_SetString(PyExc_ValueError, "arguments out of range");
        return NULL;
    }
    unsigned char *data = view.buf;
    Py_ssize_t start = -1, stop = -1;
    uint32_t key;
    memcpy(&key, key_bytes, 4);

    for (;;) {
        if (state >= IN_FRAGMENT) {
            Py_ssize_t size = end - position;
            if ((uint64_t)size > remaining)
                size = (Py_ssize_t)remaining;
            if (size) {
                if (start < 0)
                    start = stop = position;
                xor_down(data + stop, data + position, (size_t)size, key);
                key = turned(key, (uint64_t)size);
                position += size;
                stop += size;
                remaining -= (uint64_t)size;
            }
            if (remaining)
                break;
            state = state == IN_LAST ? BETWEEN_MESSAGES : BETWEEN_FRAGMENTS;
        }
        Py_ssize_t available = end - position;
        if (available < 2)
            break;
        const unsigned char *header = data + position;
        int opcode = header[0] & 0x7f; /* with the reserved bits, which must not be set */
        if (opcode != (state == BETWEEN_MESSAGES ? 2 : 0) || !(header[1] & 0x80))
            break;
        uint64_t length = header[1] & 0x7f;
        Py_ssize_t size = length < 126 ? 6 : length == 126 ? 8 : 14;
        if (available < size)
            break;
        if (length == 126) {
            length = (uint64_t)header[2] << 8 | header[3];
            if (length < 126)
                break;
        } else if (length == 127) {
            length = 0;
            for (int i = 2; i < 10; i++)
                length = length << 8 | header[i];
            if (length < 65536 || length >> 63)
                break;
        }
        memcpy(&key, header + size - 4, 4);
        remaining = length;
        state = header[0] & 0x80 ? IN_LAST : IN_FRAGMENT;
        position += size;
    }

    PyBuffer_Release(&view);
    if (start < 0)
        start = stop = position;
    return Py_BuildValue("nnnKy#i", start, stop, position, remaining, (const char *)&key,
                         (Py_ssize_t)4, state);
}

static PyMethodDef methods[] = {
    {"unmask", unmask, METH_VARARGS, "See relay.websocket.unmasking.unmask_in_python."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_unmask", NULL, 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC
PyInit__unmask(void)
{
    return PyModuleDef_Init(&definition);
}
