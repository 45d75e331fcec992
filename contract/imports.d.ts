declare module "*.sql" {
  const text: string;
  export default text;
}

// Imported as files: the path beside the bundle or inside the executable.
declare module "swagger-ui-dist/*" {
  const path: string;
  export default path;
}
