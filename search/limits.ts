/** Persons that a search returns at most. Any matching persons are a right answer. */
export const maxFound = 50;

/** Persons that each instance holds in memory for searches. Instances that store at the same time may exceed it a little. */
export const maxInMemory = 50_000;

/** Bytes of their texts: the bound for an instance's memory. */
export const maxMemoryBytes = 10 * 2 ** 20;

/** A person with more bytes goes to the index, so few persons cannot fill the memory. The contest's have at most 370. */
export const maxPersonBytes = 512;
