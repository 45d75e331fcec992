/** Persons in an answer at most. Any matching persons are a correct answer. */
export const maxFound = 50;

/** Persons in memory. Instances that store at the same time may exceed it a little. */
export const maxInMemory = 50_000;

/** Bytes of their texts. */
export const maxMemoryBytes = 10 * 2 ** 20;

/** Larger persons go to the index, so that few cannot fill the memory. The contest's have at most 370 bytes. */
export const maxPersonBytes = 512;
