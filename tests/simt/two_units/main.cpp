/// That this links is the test; and a kernel is one function for both translation units.
const void* first();
const void* second();

int main() { return first() == second() ? 0 : 1; }
