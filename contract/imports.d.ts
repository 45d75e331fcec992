declare module "*.sql" {
  const text: string;
  export default text;
}

// Imported as files: the path beside the bundle or inside the executable.
declare module "swagger-ui-dist/swagger-ui.css" {
  const path: string;
  export default path;
}
declare module "swagger-ui-dist/swagger-ui-bundle.js" {
  const path: string;
  export default path;
}
